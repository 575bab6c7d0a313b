"""Predictions on their way out, image by image: CSV, JSON and JSON lines, to the terminal or to a file.

Nothing is held back: what was predicted before a crash stands in the file. Standard library; imports `errors`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from keras_effnet.errors import UserError

Best = Sequence[tuple[str, float]]  # class names and probabilities of one image, best first


@dataclass(frozen=True)
class _Form:
    """How predictions are spelt: what comes before the first, each of them, and what closes the last."""

    head: Callable[[Best], str]
    row: Callable[[str, Best], str]
    between: str
    tail: str


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _csv_head(best: Best) -> str:
    ranks = range(1, len(best) + 1)
    return _csv_line(["path", *(f"{what}_{rank}" for rank in ranks for what in ("class", "probability"))])


def _csv_row(path: str, best: Best) -> str:
    return _csv_line([path, *(cell for name, share in best for cell in (name, f"{share:.6g}"))])


def _json_row(path: str, best: Best) -> str:
    """One member of the object that holds them all, without its braces."""
    return json.dumps({path: best}, indent=2)[2:-2]


def _jsonl_row(path: str, best: Best) -> str:
    answers = [{"class": name, "probability": share} for name, share in best]
    return json.dumps({"path": path, "predictions": answers}) + "\n"


FORMS = {
    "csv": _Form(_csv_head, _csv_row, "", ""),
    "json": _Form(lambda best: "{\n", _json_row, ",\n", "\n}\n"),
    "jsonl": _Form(lambda best: "", _jsonl_row, "", ""),
}


def form_of(path: Path) -> str:
    """The form that a file's suffix names.

    Raises:
        UserError: It names none.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise UserError(f"{path.name} does not say its form: end it in .{', .'.join(FORMS)}, or give --format.")
    return form


@contextmanager
def written(stream: TextIO, form: str) -> Iterator[Callable[[str, Best], None]]:
    """Yields a function that writes one image's path and best classes. However the block ends, the text is whole."""
    spelling, started = FORMS[form], False

    def write(path: str, best: Best) -> None:
        nonlocal started
        stream.write((spelling.between if started else spelling.head(best)) + spelling.row(path, best))
        started = True

    try:
        yield write
    finally:
        if started:
            stream.write(spelling.tail)


def part_of(path: Path) -> Path:
    """Where predictions wait until all are there."""
    return path.with_name(path.name + ".part")


@contextmanager
def written_to(path: Path, form: str) -> Iterator[Callable[[str, Best], None]]:
    """`written` to a file, line by line beside it as `.part`, which takes the file's name when the block succeeds.

    An earlier file stays as it was until then; after an interrupt or a crash the `.part` holds what was done.

    Raises:
        UserError: The file cannot be written.
    """
    part = part_of(path)
    try:
        # Line by line, so that even a killed process leaves what it did. Names of files may be no valid text.
        stream = part.open("w", buffering=1, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None
    try:
        with stream, written(stream, form) as write:
            yield write
    except BaseException:
        if not part.stat().st_size:
            part.unlink()
        raise
    part.replace(path)
