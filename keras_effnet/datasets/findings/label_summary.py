"""`LabelSummary`: what a check of a dataset found in its labels, as rows, tables and plain values. NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_effnet.datasets.labels.boxes import BoxProblem

Table = tuple[tuple[str, ...], list[tuple[object, ...]]]


@dataclass(frozen=True)
class LabelSummary:
    """What a check found in the labels of the images that can be decoded.

    Args:
        rows: Tuple of `(finding, images, note)`.
        tables: Dict of title to a pair of header and rows of text or numbers.
        details: Dict of plain values, for JSON.
    """

    rows: tuple[tuple[str, int, str], ...]
    tables: dict[str, Table]
    details: dict[str, Any] = field(default_factory=dict)

    def __add__(self, other: LabelSummary) -> LabelSummary:
        """One summary after the other."""
        return LabelSummary(self.rows + other.rows, self.tables | other.tables, self.details | other.details)


@dataclass(frozen=True)
class Checked:
    """What is checked besides the labels.

    Args:
        image_size: Int, side of the network's input in pixels.
        problems: Boxes that were corrected or left out when the annotations were read.
    """

    image_size: int
    problems: Sequence[BoxProblem] = ()


def share(part: float, whole: float) -> str:
    """Share of a whole as a percentage; a dash if the whole is empty."""
    return f"{part / whole:.1%}" if whole else "-"


def spread(counts: Sequence[int]) -> str:
    """Smallest count and the ratio of the largest to it."""
    ratio = max(counts) / min(counts) if min(counts) else float("inf")
    return f"smallest {min(counts)}, ratio {ratio:.3g}"
