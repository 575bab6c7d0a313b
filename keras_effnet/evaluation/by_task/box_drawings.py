"""Boxes drawn over images, and charts of detectors. Matplotlib, Pillow and numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.detection.precision import Truth
from keras_effnet.detection.suppression import Detections
from keras_effnet.evaluation.by_task.boxes import Scenes, Verdict, precision_recall_points
from keras_effnet.evaluation.canvas import new_figure, save

_COLOURS = (
    "#e41a1c",
    "#377eb8",
    "#4daf4a",
    "#ff7f00",
    "#984ea3",
    "#00bfc4",
    "#f781bf",
    "#a65628",
    "#e6ab02",
    "#666666",
)
_MISSED, _FALSE, _NEAR, _RIGHT = "#ffb000", "#e41a1c", "#ff00ff", "#4daf4a"
_CURVES = 10  # classes that can be told apart


@dataclass(frozen=True)
class DrawnBox:
    """A box to draw: y0, x0, y1, x1 in pixels of the image, its text, colour, and whether the line is dashed."""

    box: tuple[float, float, float, float]
    text: str = ""
    colour: str = _RIGHT
    dashed: bool = False


def colour_of(number: int) -> str:
    """Colour of a class."""
    return _COLOURS[number % len(_COLOURS)]


def detected_boxes(found: Detections, names: Sequence[str]) -> list[DrawnBox]:
    """Detections with names and scores."""
    rows = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return [DrawnBox(tuple(box), f"{names[label]} {score:.0%}", colour_of(label)) for box, label, score in rows]


def true_boxes(truth: Truth, names: Sequence[str]) -> list[DrawnBox]:
    """True boxes with the names of their classes."""
    rows = zip(np.asarray(truth.boxes).tolist(), np.asarray(truth.labels).tolist(), strict=True)
    return [DrawnBox(tuple(box), names[label], colour_of(label)) for box, label in rows]


def judged_boxes(truth: Truth, found: Detections, judged: Verdict, names: Sequence[str]) -> list[DrawnBox]:
    """Missed boxes (dashed, amber), false detections (red), badly placed ones (magenta) and right ones (green)."""
    drawn = [
        DrawnBox(tuple(truth.boxes[index].tolist()), f"{names[int(truth.labels[index])]}?", _MISSED, dashed=True)
        for index in judged.missed
    ]
    for index, partner, near in zip(judged.kept, judged.partner, judged.near, strict=True):
        label = int(found.labels[index])
        right = partner >= 0 and truth.labels[partner] == label
        colour = _RIGHT if right else _NEAR if near else _FALSE
        text = "" if right else f"{names[label]} {found.scores[index]:.0%}"
        drawn.append(DrawnBox(tuple(found.boxes[index].tolist()), text, colour))
    return drawn


def box_grid(
    images: Iterable[np.ndarray],
    boxes: Sequence[Sequence[DrawnBox]],
    titles: Sequence[str],
    path: str | Path,
    columns: int = 4,
) -> None:
    """Draw a grid of images with boxes.

    Args:
        images: Arrays of shape `(height, width, 3)`, values 0..255.
        boxes: Boxes of each image.
        titles: A line of text for each image.
        path: Image file to write.
        columns: Int, images per row.
    """
    columns = min(columns, len(boxes))
    rows = -(-len(boxes) // columns)
    figure, axes = new_figure(rows, columns, figsize=(3.1 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, found, title in zip(axes.flat, images, boxes, titles, strict=False):
        axis.imshow(np.clip(image, 0, 255).astype("uint8"))
        axis.set_title(title, fontsize=8)
        for each in found:
            _add(axis, each)
    save(figure, path)


def _add(axis: Any, each: DrawnBox) -> None:
    from matplotlib.patches import Rectangle

    y0, x0, y1, x1 = each.box
    style = "--" if each.dashed else "-"
    axis.add_patch(
        Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=each.colour, lw=1.2, linestyle=style)
    )
    if each.text:
        box = {"boxstyle": "square,pad=0.1", "fc": each.colour, "ec": "none", "alpha": 0.75}
        axis.text(x0, y0, each.text, fontsize=5.5, color="white", va="bottom", bbox=box, clip_on=True)


def draw_on_file(image: np.ndarray, boxes: Sequence[DrawnBox], path: str | Path) -> None:
    """Draw boxes over an image at its own size, and write it.

    Args:
        image: uint8 array of shape `(height, width, 3)`.
        boxes: Boxes in pixels of the image.
        path: Image file to write.
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    thickness = max(1, round(min(image.shape[:2]) / 250))
    font = ImageFont.load_default(max(10.0, min(image.shape[:2]) / 32))
    for each in boxes:
        y0, x0, y1, x1 = each.box
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=each.colour, width=thickness)
        if each.text:
            text = each.text.encode("latin-1", "replace").decode("latin-1")  # the glyphs of Pillow's font
            left, top, right, bottom = pen.textbbox((x0, 0), text, font=font)
            place = y0 - (bottom - top) - 2 * thickness if y0 > bottom - top + 2 * thickness else y0
            pen.rectangle((left, place, right + thickness, place + bottom - top + 2 * thickness), fill=each.colour)
            pen.text((x0, place - top + thickness), text, fill="white", font=font)
    canvas.save(path)


def precision_recall(scenes: Scenes, by_class: Sequence[float], names: Sequence[str], path: str | Path) -> None:
    """Plot precision against recall at an overlap of 0.5 for each class; of more than ten, those of the lowest AP.

    Args:
        scenes: `Scenes`.
        by_class: AP of each class.
        names: Names of the classes.
        path: Image file to write.
    """
    figure, axis = new_figure(figsize=(6.4, 4.6))
    known = [number for number, value in enumerate(by_class) if not np.isnan(value)]
    for number in sorted(known, key=lambda number: by_class[number])[:_CURVES]:
        recall, precision, _ = precision_recall_points(scenes, number)
        label = f"{names[number][:24]}  AP {by_class[number]:.3f}"
        axis.plot([0, *recall], [1, *precision], drawstyle="steps-post", label=label)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.set_title("overlap of at least 0.5; AP is the mean over overlaps of 0.5 to 0.95", fontsize=10)
    axis.grid(alpha=0.3)
    if known:
        figure.legend(fontsize=8, loc="outside right upper")
    save(figure, path)
