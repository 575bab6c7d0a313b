"""Signals that end a command: one line and the status of a shell, wherever they arrive."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from keras_effnet.cli import console
from keras_effnet.cli.interruption import interrupted_status, interruptible, was_interrupted

SIGNALS = pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@pytest.fixture(autouse=True)
def handlers_of_a_terminal():
    """Those of a process in the foreground: in the background of a script, tests too ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Finalizer:
    """Receives a signal in `__del__`, whose exceptions Python discards."""

    def __init__(self, number: int):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@SIGNALS
def test_a_signal_in_a_finalizer_ends_the_block(number, status):
    with pytest.raises(KeyboardInterrupt), interruptible():
        Finalizer(number)
        time.sleep(10)
    assert was_interrupted() and interrupted_status() == status


def test_a_signal_that_the_parent_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not was_interrupted()


def test_handlers_are_those_of_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@SIGNALS
def test_a_library_that_turns_a_signal_into_an_import_error_ends_the_command_alike(cli, monkeypatch, number, status):
    def importing():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(console, "prepare_tensorflow", importing)
    shown = cli("check-data", "photos")
    assert (shown.status, shown.err.strip()) == (status, "error: interrupted.")


def test_sigterm_names_the_command_that_resumes(cli, monkeypatch, tmp_path):
    def terminated():
        with console.resumable("train", Path("a run"), "last.keras"):
            signal.raise_signal(signal.SIGTERM)

    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "last.keras").touch()
    monkeypatch.setattr(console, "prepare_tensorflow", terminated)
    shown = cli("check-data", "photos")
    assert (shown.status, shown.err) == (143, "error: interrupted. Resume it: keras-effnet train --resume 'a run'\n")
