"""Writers of predictions as CSV, JSON and JSON Lines, to the terminal or to a file. Pure Python.

Each image is written at once, so the predictions made before a crash are kept.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from keras_effnet.errors import UserError
from keras_effnet.inference.layouts import BEST, Layout
from keras_effnet.system.documents import json_text
from keras_effnet.system.files import WriteError, atomic_group, cannot_write, unwritable


@dataclass(frozen=True)
class _Form:
    """Text format: header before the first prediction, row of each, separator, footer after the last."""

    head: Callable[[Layout, Any], str]
    row: Callable[[Layout, str, Any], str]
    between: str
    tail: str


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _csv_head(layout: Layout, answer: Any) -> str:
    return _csv_line(["path", *layout.header(answer)])


def _csv_row(layout: Layout, path: str, answer: Any) -> str:
    rows = layout.rows(answer) if layout.rows else [layout.cells(answer)]
    return "".join(_csv_line([path, *row]) for row in rows)


def _json_row(layout: Layout, path: str, answer: Any) -> str:
    """Member of a JSON object, without the braces."""
    return json_text({path: layout.value(answer)})[2:-2]


def _jsonl_row(layout: Layout, path: str, answer: Any) -> str:
    return json_text({"path": path} | layout.members(answer), indent=None) + "\n"


def _coco_row(layout: Layout, path: str, answer: Any) -> str:
    """Detections of an image as COCO results; the number of COCO's files is their identifier, else the name."""
    stem = Path(path).stem
    image = int(stem) if stem.isascii() and stem.isdecimal() else Path(path).name
    results = [
        {
            "image_id": image,
            "category_id": each.label + 1,
            "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": each.score,
        }
        for each in answer.boxes
        for x0, y0, x1, y1 in [each.box]
    ]
    return ",\n".join(json_text(result, indent=None) for result in results)


COCO = "coco"
FORMS = {
    "csv": _Form(_csv_head, _csv_row, "", ""),
    "json": _Form(lambda layout, answer: "{\n", _json_row, ",\n", "\n}\n"),
    "jsonl": _Form(lambda layout, answer: "", _jsonl_row, "", ""),
    COCO: _Form(lambda layout, answer: "[\n", _coco_row, ",\n", "\n]\n"),
}


def form_of(path: Path) -> str:
    """Format of a predictions file by its suffix.

    Raises:
        UserError: The suffix is unknown.
    """
    form = path.suffix.lower().removeprefix(".")
    suffixes = [name for name in FORMS if name != COCO]  # a .json file, too
    if form not in suffixes:
        raise UserError(f"{path.name} has no known format: end it in .{', .'.join(suffixes)}, or use --format.")
    return form


@contextmanager
def written(stream: TextIO, form: str, layout: Layout = BEST) -> Iterator[Callable[[str, Any], None]]:
    """Context that yields a function to write an image's path and its answer; the footer is always written."""
    spelling, started, filled = FORMS[form], False, False

    def write(path: str, answer: Any) -> None:
        nonlocal started, filled
        row = spelling.row(layout, path, answer)
        before = "" if started else spelling.head(layout, answer)
        stream.write(before + (spelling.between if filled and row else "") + row)
        started, filled = True, filled or bool(row)

    try:
        yield write
    finally:
        if started:
            stream.write(spelling.tail)


def part_of(path: Path) -> Path:
    """Temporary file of incomplete predictions."""
    return path.with_name(path.name + ".part")


@contextmanager
def written_to(path: Path, form: str, layout: Layout = BEST) -> Iterator[Callable[[str, Any], None]]:
    """Like `written`, to a `.part` file that replaces `path` when the block succeeds.

    An existing file is untouched until then; after an interrupt or a crash the `.part` file holds the predictions made.

    Raises:
        UserError: The file cannot be written.
    """
    # A device or a pipe cannot be replaced, only written.
    part = path if path.exists() and not path.is_file() else part_of(path)
    try:
        # Line buffered, so that a killed process leaves its predictions. File names need not be valid text.
        stream = part.open("w", buffering=1, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise cannot_write(str(path), error) from None
    try:
        with stream, written(stream, form, layout) as write:
            yield write
        if part != path:
            part.replace(path)
    except BaseException as error:
        kept = part == path or part.stat().st_size
        if not kept:
            part.unlink()
        if unwritable(error):
            failed = cannot_write(str(path), error)
            rows = f" The finished rows are in {part}." if kept and part != path else ""
            raise WriteError(failed.what, failed.reason, failed.cure + rows) from None
        raise


def paths_of(path: Path) -> Path:
    """File that lists the images of saved embeddings."""
    return path.with_suffix(".txt")


@contextmanager
def saved_to(path: Path) -> Iterator[Callable[[str, Sequence[float]], None]]:
    """Context that yields a function to add an image's path and embedding, and writes them all when it succeeds.

    `path` becomes a float32 array of shape `(N, features)`; paths of the images lie beside it as `.txt`, one a line.
    Both files appear together or not at all.

    Raises:
        UserError: The files cannot be written.
    """
    import numpy as np

    paths: list[str] = []
    vectors: list[np.ndarray] = []

    def add(image: str, vector: Sequence[float]) -> None:
        paths.append(image)
        vectors.append(np.asarray(vector, "float32"))

    yield add
    with atomic_group(path.parent) as staged:
        with (staged / path.name).open("wb") as stream:  # `np.save` of a path would add a suffix
            np.save(stream, np.stack(vectors))
        listed = "".join(f"{image}\n" for image in paths)
        (staged / paths_of(path).name).write_text(listed, encoding="utf-8", errors="surrogateescape")
