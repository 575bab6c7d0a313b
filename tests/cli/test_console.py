"""Console output of commands: tables, progress, and what is kept off the terminal."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from keras_effnet.cli import console
from keras_effnet.errors import UserError
from keras_effnet.system.output import captured_output


@pytest.fixture
def not_a_terminal(capfd):
    """stderr as a file, under a console made for it."""
    console._progress_console.cache_clear()
    yield capfd
    console._progress_console.cache_clear()


def test_a_log_file_gets_a_line_an_epoch_in_place_of_bars(not_a_terminal):
    with console.training_progress(2) as callback:
        callback.set_params({"steps": 3})
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            callback.on_train_batch_end(0)
            figures = {"loss": 1.5 - epoch, "val_accuracy": 0.25, "images_per_second": 120.4, "input_bound": 0.07}
            callback.on_epoch_end(epoch, figures)
    assert not_a_terminal.readouterr().err.splitlines() == [
        "Epoch 1/2: loss 1.5  val 25.0%  120 images/s, 7% of the time waiting for data.",
        "Epoch 2/2: loss 0.5  val 25.0%  120 images/s, 7% of the time waiting for data.",
    ]


BRACKETED = "pip install 'keras-effnet[study]' /data/[red]:cat:.jpg"


def test_square_brackets_and_colons_are_text_wherever_they_are_printed(not_a_terminal):
    """Not markup, nor emoji: an extra was missing from the command that installs it."""
    console.say(BRACKETED)
    console.table([BRACKETED], [[BRACKETED]], title=BRACKETED)
    with console.study_progress() as progress:
        progress(BRACKETED, 1, 2)
    shown = not_a_terminal.readouterr()
    assert shown.err.splitlines() == [BRACKETED, f"1/2 {BRACKETED}"]
    assert shown.out.count(BRACKETED) == 3


def test_square_brackets_are_text_beside_a_bar_and_a_spinner(monkeypatch):
    from io import StringIO

    from rich.console import Console

    terminal = Console(file=StringIO(), force_terminal=True, width=200, markup=False, emoji=False)
    monkeypatch.setattr(console, "_progress_console", lambda: terminal)
    with console.study_progress() as progress:
        progress(f"bar {BRACKETED}", 1, 2)
    with console.status(f"spinner {BRACKETED}"):
        pass
    with console.status("") as spinner:
        spinner.update(f"updated {BRACKETED}")
    list(console.track("track [red]")(range(2)))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())
    for place in (f"bar {BRACKETED}", f"spinner {BRACKETED}", f"updated {BRACKETED}", "track [red]"):
        assert place in shown, place


def test_a_narrow_terminal_breaks_no_number(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "24")
    console.table(["network", "MACs", "agreement"], [["b4", "4,394 M", "99.6% of 269 [97.9, 99.9]"]])
    words = capsys.readouterr().out.split()
    assert {"4,394", "99.6%", "[97.9,", "99.9]"} <= {*words}


def test_the_table_of_a_detector_fits_into_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    columns = ("precision", "size", "gzip", "same boxes", "score drift", "AP", "AP50", "SQNR", "latency", "memory")
    row = "none|1.64 MB|1.40 MB|100% of 500 [100, 100]|0.0%|7.0%|11.7%|125.2 dB|0.25 ms|9 MB"
    console.table(columns, [row.split("|")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 80


def test_a_log_file_gets_no_progress_bar(not_a_terminal):
    assert list(console.track("Checking")(range(3))) == [0, 1, 2]
    assert not_a_terminal.readouterr().err == ""


@pytest.mark.parametrize("failure", [None, UserError("too many broken files")])
def test_decoders_are_hushed_and_warnings_are_not(capfd, failure):
    with nullcontext() if failure is None else pytest.raises(UserError), console.hushed():
        os.write(2, b"Improper call to JPEG library in state 201\n")  # as libjpeg does
        os.write(2, b"warning: Skipped 1 of 41 images\n")  # as a handler of `logging` does
        if failure:
            raise failure
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "warning: Skipped 1 of 41 images\n")


def test_the_next_command_is_quoted_for_the_shell(capsys):
    words = ["keras-effnet", "eval", "my runs (1)/a'b.tflite", "DATA", "--count", 3]
    console.finish("my runs (1)", words, "a note")
    result, following = capsys.readouterr().out.splitlines()
    assert result == "Result: my runs (1)"
    assert shlex.split(following.removeprefix("Next:   "), comments=True) == [str(word) for word in words]
    assert following.endswith("   # a note")


def test_a_file_name_that_is_not_text_is_quoted_for_bash():
    name = b"d\xe9j\xe0 \\ l'\xff \xc3\xa9.jpg"
    line = console.command_line("printf", "%s", os.fsdecode(name))
    line.encode("utf-8")  # can be printed
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == name


def test_control_characters_of_names_are_shown_as_escapes(capsys):
    name = "a\nb\x1b[31m é"
    console.finish(name, ("printf", "%s", name))
    console.table(["image"], [[name]])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and shown.startswith("Result: a\\nb\\x1b[31m é\nNext: ")
    assert "\n a\\nb\\x1b[31m é" in shown
    line = shown.splitlines()[1].removeprefix("Next:   ")
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == name.encode()


def test_no_command_prints_a_next_command_that_was_not_split_into_words():
    calls = [
        (path.name, call)
        for path in Path(console.__file__).with_name("commands").glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "finish"
    ]
    assert len(calls) >= 15
    for name, call in calls:
        for argument in call.args[1:2]:
            assert not isinstance(argument, (ast.Constant, ast.JoinedStr)), f"{name}: {ast.unparse(argument)}"


def test_a_warning_of_the_converter_does_not_pass_by_the_capture_under_a_spinner(monkeypatch):
    """Its handler was made under an earlier spinner, on whose console it printed."""
    terminal = io.StringIO()
    monkeypatch.setattr(console, "_progress_console", lambda: Console(file=terminal, force_terminal=True))
    console.prepare_tensorflow()
    with console.status("Exporting"):
        monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    with console.status("Exporting"), captured_output() as lines:
        logging.getLogger("absl").warning("deprecated")
    assert any("deprecated" in line for line in lines)
    assert "deprecated" not in terminal.getvalue()
