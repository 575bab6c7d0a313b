"""What a check of a dataset looks at in boxes: sizes at the network's input, doubles, crowds. NumPy and Pillow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_effnet.datasets.findings.label_summary import Checked, LabelSummary, Table, spread
from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.datasets.labels.mask_colours import palette

BOX_TILE = 320  # pixels of a side of an image on the contact sheet
TINY = 8.0  # pixels of the shorter side at the network's input: the finest cells of detectors
HUGE = 0.9  # share of the image
SAME = 0.9  # intersection over union of two boxes that stand for one object
_SHOWN = 24
_LISTED = 50
_PROBLEMS = {
    "swapped": ("swapped boxes", "corners exchanged: corrected"),
    "clipped": ("clipped boxes", "partly outside the image: clipped"),
    "outside": ("boxes outside", "the whole box is outside the image: left out"),
    "empty": ("empty boxes", "no height or no width: left out"),
}


def boxes_text(labels: Boxes, index: int, names: Sequence[str]) -> str:
    """Number of boxes of each class of an image."""
    counts = Counter(labels.of(index).classes.tolist())
    return ", ".join(f"{count} {names[number]}" for number, count in sorted(counts.items())) or "no box"


def boxes_shown(labels: Boxes, names: Sequence[str], count: int) -> dict[str, list[int]]:
    """Images to show, spread evenly over the split, titled with their numbers of boxes."""
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), _SHOWN)).round().astype(int))
    return {f"train {index}: {len(labels.of(index).boxes)}": [index] for index in chosen.tolist()}


def drawn_boxes(pixels: np.ndarray, labels: Boxes, index: int, names: Sequence[str]) -> np.ndarray:
    """An image, reduced to the size of the contact sheet, with its boxes and the names of their classes."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(pixels)
    scale = BOX_TILE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), reducing_gap=2)
    pen = ImageDraw.Draw(image)
    colours = [tuple(np.maximum(colour, 64).tolist()) for colour in palette(len(names) + 1)[1:]]
    found = labels.of(index)
    for box, number, crowd in zip(found.boxes * scale, found.classes.tolist(), found.crowd.tolist(), strict=True):
        y0, x0, y1, x1 = box.tolist()
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colours[number], width=2)
        name = names[number][:20].encode("latin-1", "replace").decode("latin-1")  # the glyphs of Pillow's font
        text = f"{name} (group)" if crowd else name
        corner = (x0 + 1, y0 - 11 if y0 > 11 else y0 + 1)
        pen.rectangle(pen.textbbox(corner, text), fill=colours[number])
        pen.text(corner, text, fill="black" if sum(colours[number]) > 380 else "white")
    return np.asarray(image)


def same_place(boxes: np.ndarray) -> np.ndarray:
    """Pairs of boxes in nearly the same place, a bool array of shape `(B, B)`, true above the diagonal only."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    return np.triu(shared >= SAME * (area[:, None] + area[None] - shared), 1)


def _doubles(splits: Mapping[str, Boxes]) -> tuple[int, int]:
    """Boxes on the place of another one of the same class, and of another class."""
    same = other = 0
    for labels in splits.values():
        for index in np.flatnonzero(np.diff(labels.offsets) > 1).tolist():
            found = labels.of(index)
            first, second = np.nonzero(same_place(found.boxes))
            equal = found.classes[first] == found.classes[second]
            same += len(np.unique(second[equal]))
            other += len(np.unique(second[~equal]))
    return same, other


def summarize_boxes(splits: Mapping[str, Any], names: Sequence[str], checked: Checked) -> LabelSummary:
    """Count boxes by class, size and defect, at the size that they have when the image is stretched to the input."""
    size = checked.image_size
    each = {split: np.bincount(labels.classes, minlength=len(names)) for split, labels in splits.items()}
    per_image = np.concatenate([np.diff(labels.offsets) for labels in splits.values()])
    classes = np.concatenate([labels.classes for labels in splits.values()])
    shares = np.concatenate([_shares(labels) for labels in splits.values()])
    sides = np.sqrt(shares.prod(axis=1)) * size
    tiny, huge = shares.min(axis=1) * size < TINY, shares.prod(axis=1) > HUGE
    crowd = int(sum(labels.crowd.sum() for labels in splits.values()))
    same, other = _doubles(splits)
    problems = Counter(problem.kind for problem in checked.problems)
    rows: list[tuple[str, int, str]] = [
        ("boxes", len(classes), f"up to {per_image.max(initial=0)} on one image"),
        ("without boxes", int((per_image == 0).sum()), "images, kept: nothing is to be found there"),
        *((name, problems[kind], note) for kind, (name, note) in _PROBLEMS.items()),
        ("tiny boxes", int(tiny.sum()), f"a side below {TINY:g} pixels at {size}"),
        ("huge boxes", int(huge.sum()), f"more than {HUGE:.0%} of the image"),
        ("double boxes", same, "on the place of another one of the class"),
        ("conflicting boxes", other, "on the place of a box of another class"),
        ("crowd boxes", crowd, "of groups"),
        ("largest class", int(each["train"].max(initial=0)), f"boxes; {spread(each['train'].tolist())}"),
    ]
    header = ("class", *(f"{split} boxes" for split in each), "images", f"median side at {size}", "tiny")
    images = np.sum([labels.presence(len(names)).sum(axis=0) for labels in splits.values()], axis=0)
    medians = [
        float(np.median(sides[classes == place])) if (classes == place).any() else None for place in range(len(names))
    ]
    tiny_of = np.bincount(classes[tiny], minlength=len(names))
    table: list[tuple[object, ...]] = [
        (
            name,
            *(int(counts[place]) for counts in each.values()),
            int(images[place]),
            "-" if medians[place] is None else f"{medians[place]:.0f}",
            int(tiny_of[place]),
        )
        for place, name in enumerate(names)
    ]
    details = {
        "boxes": {split: dict(zip(names, counts.tolist(), strict=True)) for split, counts in each.items()},
        "median_side": dict(zip(names, medians, strict=True)),
        "without_boxes": int((per_image == 0).sum()),
        "tiny_boxes": int(tiny.sum()),
        "huge_boxes": int(huge.sum()),
        "double_boxes": same,
        "conflicting_boxes": other,
        "crowd_boxes": crowd,
        "problems": [
            {"where": each.where.rstrip(" ,"), "kind": each.kind, "box": [float(value) for value in each.box]}
            for each in checked.problems
        ],
    }
    tables: dict[str, Table] = {"Boxes": (header, table)}
    if checked.problems:
        listed: list[tuple[object, ...]] = [
            (each.where.rstrip(" ,"), each.kind, " ".join(f"{value:.4g}" for value in each.box))
            for each in checked.problems[:_LISTED]
        ]
        more = f", the first {_LISTED}" if len(checked.problems) > _LISTED else ""
        tables[f"Boxes corrected or left out{more}"] = (("where", "kind", "y0 x0 y1 x1"), listed)
    return LabelSummary(tuple(rows), tables, details)


def _shares(labels: Boxes) -> np.ndarray:
    """Height and width of every box as shares of its image, of shape `(M, 2)`."""
    sizes = np.repeat(labels.sizes, np.diff(labels.offsets), axis=0)
    return (labels.boxes[:, 2:] - labels.boxes[:, :2]) / np.maximum(sizes, 1)
