"""`Layout`: how the answer for an image is spelled in CSV and JSON, by kind of answer. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Layout:
    """Spelling of an answer.

    Args:
        header: Function from an answer to the CSV columns after `path`.
        cells: Function from an answer to the cells of these columns.
        value: Function from an answer to the value of an image's path in JSON.
        members: Function from an answer to the members of its line in JSON Lines, besides `path`.
        rows: Function from an answer to the cells of several CSV lines, instead of `cells`.
    """

    header: Callable[[Any], Sequence[str]]
    cells: Callable[[Any], Sequence[object]]
    value: Callable[[Any], Any]
    members: Callable[[Any], dict[str, Any]]
    rows: Callable[[Any], Sequence[Sequence[object]]] | None = None


class Flags(NamedTuple):
    """Answer of a network with independent labels: probability of each label, and the labels above the threshold."""

    probabilities: dict[str, float]
    said: list[str]


class FoundBox(NamedTuple):
    """A detection: class, score, and x0, y0, x1, y1 in pixels of the original image."""

    name: str
    label: int
    score: float
    box: tuple[float, float, float, float]


class Found(NamedTuple):
    """Answer of a detector: file of the image with its boxes drawn, and the detections, best first."""

    drawn: str
    boxes: list[FoundBox]


class Mask(NamedTuple):
    """Answer of a segmentation: files of the mask and of the overlay, and the share of the pixels of each class."""

    mask: str
    overlay: str
    shares: dict[str, float]


def _digits(value: float) -> str:
    return f"{value:.6g}"


def _chosen(answer: Flags) -> list[tuple[str, float]]:
    return [(name, answer.probabilities[name]) for name in answer.said]


def _classes(best: Sequence[tuple[str, float]]) -> list[dict[str, object]]:
    return [{"class": name, "probability": share} for name, share in best]


# Class names and probabilities of one image, best first.
BEST = Layout(
    header=lambda best: [f"{what}_{rank}" for rank in range(1, len(best) + 1) for what in ("class", "probability")],
    cells=lambda best: [cell for name, share in best for cell in (name, _digits(share))],
    value=lambda best: best,
    members=lambda best: {"predictions": _classes(best)},
)
FLAGS = Layout(
    header=lambda answer: ["labels", *answer.probabilities],
    cells=lambda answer: ["|".join(answer.said), *map(_digits, answer.probabilities.values())],
    value=_chosen,
    members=lambda answer: {"labels": answer.said, "probabilities": answer.probabilities},
)
VALUES = Layout(
    header=lambda answer: list(answer),
    cells=lambda answer: [_digits(value) for value in answer.values()],
    value=lambda answer: answer,
    members=lambda answer: {"values": answer},
)
VECTOR = Layout(
    header=lambda vector: [f"feature_{place}" for place in range(len(vector))],
    cells=lambda vector: [_digits(value) for value in vector],
    value=lambda vector: vector,
    members=lambda vector: {"embedding": vector},
)
MASK = Layout(
    header=lambda answer: ["mask", "overlay", *answer.shares],
    cells=lambda answer: [answer.mask, answer.overlay, *map(_digits, answer.shares.values())],
    value=lambda answer: answer._asdict(),
    members=lambda answer: answer._asdict(),
)


def _box_cells(each: FoundBox) -> list[object]:
    return [each.name, _digits(each.score), *(f"{side:.2f}" for side in each.box)]


def _box_members(answer: Found) -> list[dict[str, object]]:
    return [
        {"class": each.name, "score": each.score, "box": [round(side, 2) for side in each.box]} for each in answer.boxes
    ]


# A line for each detection; one with empty cells for an image without any.
BOXES = Layout(
    header=lambda answer: ["class", "score", "x0", "y0", "x1", "y1"],
    cells=lambda answer: [""] * 6,
    value=_box_members,
    members=lambda answer: {"drawn": answer.drawn, "boxes": _box_members(answer)},
    rows=lambda answer: [_box_cells(each) for each in answer.boxes] or [[""] * 6],
)
