"""Console output of commands: tables, progress, and what is kept off the terminal."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest

from keras_effnet.cli import console
from keras_effnet.errors import UserError


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
