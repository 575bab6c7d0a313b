"""Terminal output of the commands: tables and JSON on stdout, progress on stderr. Uses rich and click."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import click

from keras_effnet.cli.interruption import interrupted_status
from keras_effnet.errors import printable
from keras_effnet.system.documents import json_text
from keras_effnet.tasks.learning import ACCURACY, Watched

_WARNING = "warning: "
_LONGEST_NUMBER = 12  # characters; longer words with digits, such as paths, are wrapped anywhere


@cache
def _progress_console():
    """Console on a duplicate of stderr, so that progress stays visible while C++ output is captured."""
    from rich.console import Console

    return Console(file=os.fdopen(os.dup(2), "w", errors="backslashreplace"), markup=False, emoji=False)


def prepare_tensorflow() -> None:
    """Import TensorFlow and Keras without their start-up messages; send warnings of this package to stderr."""
    from keras_effnet.system.output import captured_output

    logger = logging.getLogger("keras_effnet")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
        logger.handlers[0].setFormatter(logging.Formatter(f"{_WARNING}%(message)s"))
        logger.propagate = False  # TensorFlow's converter gives the root logger a handler that repeats every message
    with _progress_console().status("Starting TensorFlow"), captured_output():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    # The root logger's handler may hold the stderr of a spinner, which bypasses `captured_output`.
    absl = logging.getLogger("absl")
    if absl.propagate:
        absl.addHandler(logging.StreamHandler(sys.__stderr__))
        absl.propagate = False


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table to stdout, the first column left-aligned, the others right-aligned.

    Numbers are never broken: digits on two lines are two numbers. On a terminal too narrow for that lines exceed it.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    drawn = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,  # fits eight columns into 80 characters
    )
    cells = [[*map(printable, row)] for row in rows]
    for index, header in enumerate(headers):
        numbers = [word for row in cells for word in row[index].split() if any(map(str.isdigit, word))]
        widest = max((length for length in map(cell_len, numbers) if length <= _LONGEST_NUMBER), default=1)
        if index:
            drawn.add_column(header, justify="right", overflow="fold", min_width=widest)
        else:
            drawn.add_column(header, no_wrap=True, overflow="fold")
    for row in cells:
        drawn.add_row(*row)

    class Terminal(Console):
        def on_broken_pipe(self):  # rich exits with status 1
            raise BrokenPipeError

    Terminal(markup=False, emoji=False).print(drawn, crop=False)


def say(line: str) -> None:
    """Print a line on stderr, above the progress bar if there is one: decisions of a run and their reasons."""
    _progress_console().print(line, style="dim", highlight=False, soft_wrap=True)


def hold(folder: Path) -> None:
    """Lock a folder until the command ends, so that a second command is refused before it reads any data.

    Raises:
        UserError: Another process uses the folder, or it cannot be written.
    """
    from keras_effnet.system.run_folders import locked

    click.get_current_context().with_resource(locked(folder))


@contextmanager
def resumable(command: str, folder: Path, checkpoint: str) -> Iterator[None]:
    """On Ctrl-C and SIGTERM, show the command that resumes a run, if there is something to resume from.

    Args:
        command: String, name of the command.
        folder: Path of the run.
        checkpoint: String, file in the folder without which it cannot be resumed.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not (folder / checkpoint).is_file():
            raise
        resume = command_line("keras-effnet", command, "--resume", folder)
        click.echo(f"error: interrupted. Resume it: {resume}", err=True)
        raise click.exceptions.Exit(interrupted_status()) from None


def emit_json(value: Any) -> None:
    """Print a value to stdout as indented JSON."""
    click.echo(json_text(value))


def command_line(*words: object) -> str:
    """Join words to a command line that a shell splits into the same words, whatever bytes paths contain."""
    return " ".join(_quoted(_no_option(str(word))) for word in words)


def _no_option(word: str) -> str:
    return f"./{word}" if word.startswith("-") and Path(word).exists() else word


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = os.fsencode(word.replace("\\", "\\\\").replace("'", "\\'")).decode("utf-8", "backslashreplace")
    return f"$'{printable(escaped)}'"  # of bash and zsh: such bytes cannot be typed


def finish(result: str, following: Sequence[object] = (), note: str = "") -> None:
    """Print the last lines of every command: where the result is, and the next command to run.

    Args:
        result: Path or summary of the result.
        following: Words of the next command; paths in it must exist. Empty for none.
        note: Comment after the command.
    """
    click.echo(f"Result: {printable(str(result))}")
    if following:
        click.echo(f"Next:   {command_line(*following)}" + (f"   # {note}" if note else ""))


class Spinner:
    """Spinner on stderr whose text may contain square brackets."""

    def __init__(self, text: str):
        from rich.text import Text

        self._text = Text
        self._status = _progress_console().status(Text(text))

    def update(self, text: str) -> None:
        """Change the text."""
        self._status.update(self._text(text))

    def __enter__(self) -> Spinner:
        self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()


def status(text: str) -> Spinner:
    """Show a spinner on stderr; `.update(text)` changes its text."""
    return Spinner(text)


def track(description: str, total: int | None = None):
    """Return a function that wraps an iterable in a progress bar on stderr, if that is a terminal."""
    from rich.markup import escape
    from rich.progress import track as rich_track

    console = _progress_console()
    options = {"console": console, "transient": True, "disable": not console.is_terminal}
    return lambda items: rich_track(items, escape(description), total=total, **options)


@contextmanager
def hushed() -> Iterator[None]:
    """Suppress the messages of the C decoders, which report every flaw; warnings of this package are still shown.

    Used while a dataset is checked, because the check itself lists the unreadable files.
    """
    from keras_effnet.system.output import captured_output

    lines: list[str] = []
    try:
        with captured_output() as lines:
            yield
    finally:
        for line in lines:
            if line.startswith(_WARNING):
                click.echo(line, err=True)


@contextmanager
def training_progress(epochs: int, watched: Watched | None = None):
    """Show progress bars for epochs and steps, with remaining time and latest metrics; yields a Keras callback.

    If stderr is not a terminal, prints one line per epoch instead.

    Args:
        epochs: Int.
        watched: `Watched`, the metric to show; the accuracy by default.
    """
    import keras
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = watched or ACCURACY
    name = "" if shown == ACCURACY else f"{shown.title} "
    task, note = (TextColumn(f"{{task.{each}}}", markup=False) for each in ("description", "fields[note]"))
    columns = (task, BarColumn(bar_width=12), MofNCompleteColumn(), TimeRemainingColumn(), note)

    class Bars(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            bars.reset(steps, total=self.params["steps"])
            bars.update(whole, completed=epoch)

        def on_train_batch_end(self, batch, logs=None):
            bars.update(steps, completed=batch + 1)

        def on_epoch_end(self, epoch, logs: Mapping[str, float] | None = None):
            logs, speed = logs or {}, ""
            note = f"loss {logs['loss']:.4g}  val {name}{shown.shown(logs[shown.column])}"
            if shown.average_column in logs:
                note += f" (average {shown.shown(logs[shown.average_column])})"
            if "images_per_second" in logs:
                waiting = f"{logs['input_bound']:.0%} of the time waiting for data"
                speed = f"{logs['images_per_second']:.0f} images/s, {waiting}"
            bars.update(whole, completed=epoch + 1, note=note)
            bars.update(steps, note=speed)
            if bars.disable:
                say(f"Epoch {epoch + 1}/{epochs}: {'  '.join(filter(None, (note, speed)))}.")

    # In a log file a bar would show nothing until the end; print one line per epoch there.
    console = _progress_console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        whole = bars.add_task("epochs", total=epochs, note="")
        steps = bars.add_task("steps ", total=None, note="")
        yield Bars()


@contextmanager
def study_progress() -> Iterator[Any]:
    """Show a progress bar over the epochs of all trainings; yields a function `(text, done, total)`.

    If stderr is not a terminal, prints lines instead.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    text = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    columns = (BarColumn(bar_width=20), TaskProgressColumn(), TimeElapsedColumn(), *text)
    console = _progress_console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)
        shown = None

        def update(text: str, done: float, total: float) -> None:
            nonlocal shown
            bars.update(task, description=text, completed=done, total=total)
            if bars.disable and (text, done) != shown:  # a log file gets one line per change
                say(f"{done:g}/{total:g} {text}")
            shown = text, done

        yield update
