"""`Findings`: what an evaluation writes and prints, whatever the task. numpy and click."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_effnet.cli import console

if TYPE_CHECKING:
    from keras_effnet.architecture.detectors import DetectorSpec
    from keras_effnet.datasets.splits import Split
    from keras_effnet.preprocessing import ImageSpec

DRAWN = 24  # images on a contact sheet
TABLED = 20  # up to this many classes, all are shown


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated.

    Args:
        path: Path of the model file.
        names: Names of the classes, labels or values.
        part: `Split` of labelled images.
        image_spec: `ImageSpec` of the network.
        predict: Function from images to outputs.
        threshold: Float in [0, 1], probability from which on a decision is yes, or a box counts.
        detector: `DetectorSpec` of a detector.
    """

    path: Path
    names: Sequence[str]
    part: Split
    image_spec: ImageSpec
    predict: Callable[[np.ndarray], np.ndarray]
    threshold: float = 0.5
    detector: DetectorSpec | None = None

    @property
    def images(self) -> Sequence[object]:
        """Paths of the images, or their indices in the split if they are not files."""
        images = self.part.images
        return images if isinstance(images, tuple) else range(len(self.part))

    def read(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read images and labels at some indices of the split again.

        Some sources return them in their own order, whatever order is requested.
        """
        from keras_effnet.pipeline.batches import image_pipeline

        inorder = np.sort(chosen)
        batches = list(image_pipeline(self.part.select(inorder), self.image_spec, len(inorder)))
        arrays = (np.concatenate([np.asarray(each) for each in part]) for part in zip(*batches, strict=True))
        images, labels = (array[np.searchsorted(inorder, chosen)] for array in arrays)
        return images, labels


class CsvTable(NamedTuple):
    """A CSV file: header and rows."""

    header: Sequence[str]
    rows: Iterable[Sequence[object]]

    def write(self, path: Path) -> None:
        """Write the file; empty cells stand for NaN."""
        # File names may be invalid text.
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(self.header)
            writer.writerows(map(_cell, row) for row in self.rows)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


@dataclass(frozen=True, eq=False)
class Findings:
    """What an evaluation writes and prints.

    Args:
        summary: Dict for `results.json`.
        tables: Dict of file name to `CsvTable`.
        drawings: Dict of file name to a function that draws to a path.
        lines: Lines for the terminal.
        show_names: Function that prints a table of the classes, labels or values.
    """

    summary: dict[str, object]
    tables: dict[str, CsvTable]
    drawings: dict[str, Callable[[Path], None]]
    lines: Sequence[str]
    show_names: Callable[[], None] = field(default=lambda: None)

    @property
    def files(self) -> str:
        """Names of the files written, for the last line."""
        return ", ".join(["results.json", *self.tables, *self.drawings])


def percent(share: float) -> str:
    """A share as text; a dash for NaN."""
    return "-" if math.isnan(share) else f"{share:.1%}"


def number(value: float) -> str:
    """A number as text; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def show_ranked(headers: Sequence[str], rows: Sequence[Sequence[str]], ranks: Sequence[float], what: str) -> None:
    """Print a table of all rows, or of the ten worst and the ten best if there are many.

    Args:
        headers: Column headers.
        rows: Cells of each row.
        ranks: Value by which each row is ranked; rows with NaN are shown only if all are.
        what: String, what the rows are ranked by, as in "classes, by F1", and which file lists all.
    """
    if len(rows) <= TABLED:
        return console.table(headers, rows)
    order = [place for place in np.argsort(ranks, kind="stable").tolist() if not math.isnan(ranks[place])]
    half = TABLED // 2
    console.table(headers, [rows[place] for place in order[:half]], title=f"The worst of {len(rows)} {what}")
    console.table(headers, [rows[place] for place in order[half:][-half:]], title="The best")
