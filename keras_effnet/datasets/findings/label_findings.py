"""`LABEL_FINDINGS`: what a check of a dataset looks at in its labels, by task. NumPy.

One table; whoever checks or reports takes functions and tables from it and never asks for the task's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.datasets.findings.box_findings import BOX_TILE, boxes_shown, boxes_text, drawn_boxes, summarize_boxes
from keras_effnet.datasets.findings.label_summary import Checked, LabelSummary, share, spread
from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.labels.mask_colours import overlay, palette
from keras_effnet.datasets.labels.masks import IGNORED, Masks
from keras_effnet.errors import listed

_FENCES = 3.0  # interquartile ranges beyond the quartiles from which on a value is an outlier
_BINS = 30
_SHOWN = 24  # images of values or masks on the contact sheet
_PAIRS = 20  # pairs of labels in the table
_LISTED = 5


@dataclass(frozen=True)
class LabelFindings:
    """Functions that a check needs of a kind of labels.

    Args:
        text: Function from labels, index and names to what an image is labelled, as text; images with equal pixels and
            different texts contradict each other.
        shown: Function from training labels, names and a number to a dict of title to the indices of images to show.
        summarize: Function from a dict of split to labels, names, and `Checked`, to a `LabelSummary`.
        draw: Function from pixels, labels, index and names to the pixels to show.
        weighed: Bool, whether there are weights that balance the classes, for `fit(class_weight=...)`.
        tile: Int, side of the images of the contact sheet in pixels.
        image_size: Int, side of the network's input in pixels, unless another is given.
    """

    text: Callable[[Any, int, Sequence[str]], str]
    shown: Callable[[Any, Sequence[str], int], dict[str, list[int]]]
    summarize: Callable[[Mapping[str, Any], Sequence[str], Checked], LabelSummary]
    draw: Callable[[np.ndarray, Any, int, Sequence[str]], np.ndarray] = lambda pixels, labels, index, names: pixels
    weighed: bool = False
    tile: int = 96
    image_size: int = 224


def _whole(splits: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([np.asarray(labels) for labels in splits.values()])


def _counted(splits: Mapping[str, Any], names: Sequence[str], task: str) -> dict[str, list[int]]:
    return {split: KINDS[task].counts(labels, len(names)).tolist() for split, labels in splits.items()}


# ------------------------------------------------------------------ classes


def _classes_shown(labels: np.ndarray, names: Sequence[str], count: int) -> dict[str, list[int]]:
    return {name: np.flatnonzero(labels == place)[:count].tolist() for place, name in enumerate(names)}


def _summarize_classes(splits: Mapping[str, Any], names: Sequence[str], checked: Checked) -> LabelSummary:
    counts = _counted(splits, names, "classification")
    rows = [(name, *(each[place] for each in counts.values())) for place, name in enumerate(names)]
    return LabelSummary(
        (("largest class", max(counts["train"]), spread(counts["train"])),), {"Classes": (("class", *counts), rows)}
    )


# ------------------------------------------------------------------ labels


def _flags_text(labels: np.ndarray, index: int, names: Sequence[str]) -> str:
    return "|".join(names[place] for place in np.flatnonzero(labels[index]).tolist()) or "no label"


def _flags_shown(labels: np.ndarray, names: Sequence[str], count: int) -> dict[str, list[int]]:
    return {name: np.flatnonzero(labels[:, place])[:count].tolist() for place, name in enumerate(names)}


def _summarize_flags(splits: Mapping[str, Any], names: Sequence[str], checked: Checked) -> LabelSummary:
    counts = _counted(splits, names, "multilabel")
    flags = _whole(splits).astype("int64")
    together = flags.T @ flags
    rows = [
        (name, *(each[place] for each in counts.values()), share(together[place, place], len(flags)))
        for place, name in enumerate(names)
    ]
    pairs = sorted(
        ((int(together[a, b]), a, b) for a in range(len(names)) for b in range(a) if together[a, b]), reverse=True
    )
    together_rows: list[tuple[object, ...]] = [
        (f"{names[b]}, {names[a]}", both, share(both, together[b, b]), share(both, together[a, a]))
        for both, a, b in pairs[:_PAIRS]
    ]
    always = [(both, a, b) for both, a, b in pairs if both == together[a, a] == together[b, b]]
    tables = {"Labels": (("label", *counts, "of all images"), rows)}
    if together_rows:
        header = ("labels together", "images", "of the first's", "of the second's")
        tables["Labels that occur together"] = (header, together_rows)
    most = int(flags.sum(axis=1).max(initial=0))
    return LabelSummary(
        (
            ("largest label", max(counts["train"]), spread(counts["train"])),
            ("without a label", int((flags.sum(axis=1) == 0).sum()), "all labels are 0"),
            ("several labels", int((flags.sum(axis=1) > 1).sum()), f"up to {most} on one image"),
            *(
                ("inseparable labels", both, f"{names[b]} and {names[a]} are on the same images")
                for both, a, b in always[:_LISTED]
            ),
        ),
        tables,
        {"together": together.tolist(), "without_label": int((flags.sum(axis=1) == 0).sum())},
    )


# ------------------------------------------------------------------ values


def _values_text(labels: np.ndarray, index: int, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in zip(names, labels[index].tolist(), strict=True))


def _values_shown(labels: np.ndarray, names: Sequence[str], count: int) -> dict[str, list[int]]:
    order = np.argsort(labels[:, 0], kind="stable") if len(labels) else np.arange(0)
    chosen = order[_spaced(len(order))].tolist()
    return {f"{place + 1}: {labels[index, 0]:.4g}": [index] for place, index in enumerate(chosen)}


def _spaced(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _SHOWN)).round().astype(int)) if count else np.arange(0)


def _summarize_values(splits: Mapping[str, Any], names: Sequence[str], checked: Checked) -> LabelSummary:
    header = ("value", "split", "smallest", "median", "largest", "mean", "deviation", "outliers")
    rows: list[tuple[object, ...]] = []
    details: dict[str, Any] = {}
    values = _whole(splits).astype("float64")
    outlying, beyond = np.zeros(len(values), bool), []
    for place, name in enumerate(names):
        column = values[:, place]
        low, high = _fences(np.asarray(splits["train"])[:, place])
        outlying |= (column < low) | (column > high)
        edges = np.histogram_bin_edges(column, _BINS) if len(column) else np.zeros(2)
        histogram = {}
        for split, labels in splits.items():
            part = np.asarray(labels, "float64")[:, place]
            if not len(part):
                continue
            figures = part.min(), np.median(part), part.max(), part.mean(), part.std()
            outside = int(((part < low) | (part > high)).sum())
            rows.append((name, split, *(f"{figure:.4g}" for figure in figures), outside))
            histogram[split] = np.histogram(part, edges)[0].tolist()
        details[name] = {"fences": [low, high], "edges": edges.tolist(), "histogram": histogram}
        beyond += _unseen(splits, place, name)
    constant = [name for place, name in enumerate(names) if len(values) and np.ptp(values[:, place]) == 0]
    notes: list[tuple[str, int, str]] = [
        ("outliers", int(outlying.sum()), f"beyond the quartiles of train by {_FENCES:g} times their distance"),
        ("out of range", sum(count for count, _ in beyond), listed([text for _, text in beyond], _LISTED, "; ")),
    ]
    if constant:
        notes.append(("constant values", len(values), listed(constant, _LISTED)))
    return LabelSummary(tuple(notes), {"Values": (header, rows)}, {"values": details})


def _fences(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return -float("inf"), float("inf")
    first, third = np.percentile(values.astype("float64"), (25, 75)).tolist()
    if first == third:  # most values are equal, so that the distance says nothing
        return float(values.min()), float(values.max())
    return first - _FENCES * (third - first), third + _FENCES * (third - first)


def _unseen(splits: Mapping[str, Any], place: int, name: str) -> list[tuple[int, str]]:
    """Held-out values beyond those that are trained on."""
    train = np.asarray(splits["train"])[:, place]
    found = []
    for split, labels in splits.items():
        part = np.asarray(labels)[:, place]
        count = int(((part < train.min()) | (part > train.max())).sum()) if len(train) else 0
        if count:
            found.append((count, f"{name} of {split} beyond {train.min():.4g} to {train.max():.4g} of train"))
    return found


# ------------------------------------------------------------------ masks


def _masks_text(labels: Masks, index: int, names: Sequence[str]) -> str:
    mask = labels.read(index)
    used = [names[value] for value in np.unique(mask).tolist() if value < len(names)]
    digest = hashlib.sha256(mask.tobytes()).hexdigest()[:6]
    return f"mask {digest}: {listed(used, _LISTED) or 'ignored'}"


def _masks_shown(labels: Masks, names: Sequence[str], count: int) -> dict[str, list[int]]:
    return {f"train {index}": [index] for index in _spaced(len(labels)).tolist()}


def _drawn_mask(pixels: np.ndarray, labels: Masks, index: int, names: Sequence[str]) -> np.ndarray:
    mask = labels.read(index)
    if mask.shape != pixels.shape[:2]:
        return pixels
    unknown = (mask >= len(names)) & (mask != IGNORED)
    return overlay(pixels, np.where(unknown, IGNORED, mask), palette(len(names)))


def _summarize_masks(splits: Mapping[str, Any], names: Sequence[str], checked: Checked) -> LabelSummary:
    counts = {split: labels.counts() for split, labels in splits.items()}
    whole = np.concatenate(list(counts.values()))
    pixels, ignored = whole[:, : len(names)].sum(axis=0), int(whole[:, IGNORED].sum())
    known, total = int(pixels.sum()), int(whole.sum())
    header = ("class", *(f"{split} images" for split in counts), "pixels", "of the known pixels")
    rows = [
        (name, *((each[:, place] > 0).sum() for each in counts.values()), pixels[place], share(pixels[place], known))
        for place, name in enumerate(names)
    ]
    present = (whole[:, : len(names)] > 0).sum(axis=1)
    background = (present == 1) & (whole[:, 0] > 0)
    absent = [name for place, name in enumerate(names) if not counts["train"][:, place].any()]
    notes: list[tuple[str, int, str]] = [
        ("empty masks", int(background.sum()), f"of class {names[0]} alone"),
        ("all ignored", int((present == 0).sum()), "no pixel of a class"),
        ("ignored pixels", int((whole[:, IGNORED] > 0).sum()), f"{share(ignored, total)} of all pixels"),
    ]
    if absent:
        notes.append(("classes without pixels", 0, f"in train: {listed(absent, _LISTED)}"))
    details = {
        "pixels": dict(zip(names, pixels.tolist(), strict=True)),
        "ignored_pixels": ignored,
        "share_of_pixels": [float(share) / known if known else 0.0 for share in pixels],
        "share_of_images": [float(share) for share in (whole[:, : len(names)] > 0).mean(axis=0)] if len(whole) else [],
    }
    return LabelSummary(tuple(notes), {"Classes": (header, rows)}, details)


_CLASSES = LabelFindings(
    text=lambda labels, index, names: names[labels[index]],
    shown=_classes_shown,
    summarize=_summarize_classes,
    weighed=True,
)
LABEL_FINDINGS: dict[str, LabelFindings] = {
    "classification": _CLASSES,
    "binary": _CLASSES,
    "multilabel": LabelFindings(_flags_text, _flags_shown, _summarize_flags),
    "regression": LabelFindings(_values_text, _values_shown, _summarize_values),
    "segmentation": LabelFindings(_masks_text, _masks_shown, _summarize_masks, _drawn_mask),
    "detection": LabelFindings(boxes_text, boxes_shown, summarize_boxes, drawn_boxes, tile=BOX_TILE, image_size=320),
}
