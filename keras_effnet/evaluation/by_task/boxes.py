"""Detections compared with true boxes: average precision, and what became of every box at one threshold. numpy.

Detections and true boxes are in pixels of the original images: the input's, divided by `scale`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.detection.boxes import input_scales, overlaps
from keras_effnet.detection.precision import AveragePrecision, Truth, average_precision
from keras_effnet.detection.suppression import Detections, detections
from keras_effnet.errors import UserError
from keras_effnet.evaluation.metrics import check_finite

MATCHED = 0.5  # overlap from which a detection has found a box
NEAR = 0.1  # overlap from which a detection is of that box, but badly placed

Outputs: TypeAlias = Mapping[str, np.ndarray]
BoxBatches: TypeAlias = Iterable[tuple[Outputs, Mapping[str, Any]]]


@dataclass(frozen=True, eq=False)
class Scenes:
    """True boxes and detections of some images, in the same order and in pixels of the original images."""

    truth: tuple[Truth, ...]
    found: tuple[Detections, ...]


def found_boxes(outputs: Outputs, anchors: np.ndarray, size: tuple[int, int], **options: Any) -> list[Detections]:
    """Detections of a batch, in pixels of the network's input.

    Args:
        outputs: Dict of `"boxes"`, array of shape `(N, anchors, 4)`, and `"scores"` of shape `(N, anchors, classes)`.
        anchors: Array of shape `(anchors, 4)`, from `detection.anchor_boxes`.
        size: Height and width of the input.
        **options: Those of `detection.detections`.

    Raises:
        UserError: An output is NaN or infinite.
    """
    for values in outputs.values():
        check_finite(values)
    return [
        detections(codes, scores, anchors, size, **options)
        for codes, scores in zip(outputs["boxes"], outputs["scores"], strict=True)
    ]


def scaled(found: Detections, scale: np.ndarray) -> Detections:
    """Detections in pixels of the original image.

    Args:
        found: `Detections` in pixels of the input.
        scale: Array of shape `(2,)`, pixels of the input per pixel of the original image, vertical and horizontal.
    """
    return replace(found, boxes=(found.boxes / np.tile(scale, 2)).astype("float32"))


def truths(labels: Mapping[str, Any]) -> list[Truth]:
    """True boxes of an evaluation batch of `image_pipeline`, in pixels of the original images."""
    boxes, classes, crowd, scale = (np.asarray(labels[name]) for name in ("boxes", "classes", "crowd", "scale"))
    known = classes >= 0
    return [
        Truth(box[mask] / np.tile(own, 2), number[mask], group[mask].astype(bool))
        for box, number, group, own, mask in zip(boxes, classes, crowd, scale, known, strict=True)
    ]


def input_truths(labels: Boxes, image_size: int, fit: str) -> list[Truth]:
    """True boxes of each image in pixels of the network's input.

    Args:
        labels: `Boxes`.
        image_size: Int, side of the input in pixels.
        fit: `"stretch"` or `"letterbox"`, how images are fitted into the input.
    """
    scales = np.tile(input_scales(labels.sizes, image_size, fit), 2)
    images = (labels.of(index) for index in range(len(labels)))
    return [Truth(boxes * scale, classes, crowd) for (boxes, classes, crowd), scale in zip(images, scales, strict=True)]


def collect_scenes(batches: BoxBatches, anchors: np.ndarray, size: tuple[int, int], **options: Any) -> Scenes:
    """Detect in all batches.

    Args:
        batches: Pairs of outputs and labels of evaluation batches.
        anchors, size, **options: As in `found_boxes`.
    """
    truth: list[Truth] = []
    found: list[Detections] = []
    for outputs, labels in batches:
        truth += truths(labels)
        here = found_boxes(outputs, anchors, size, **options)
        found += [scaled(each, own) for each, own in zip(here, np.asarray(labels["scale"]), strict=True)]
    if not truth:
        raise UserError("No images to evaluate.")
    return Scenes(tuple(truth), tuple(found))


# ------------------------------------------------------------------ one threshold


@dataclass(frozen=True, eq=False)
class Verdict:
    """What became of the boxes of an image at a threshold.

    Args:
        kept: Int array of shape `(D,)`, numbers of the detections above the threshold, best first.
        partner: Int array of shape `(D,)`, number of the true box that each has found, of whatever class; -1 for none.
        near: Bool array of shape `(D,)`, whether one that found none lies near a true box of its class that nobody
            found: it is badly placed.
        missed: Int array, numbers of the true boxes that no detection found.
    """

    kept: np.ndarray
    partner: np.ndarray
    near: np.ndarray
    missed: np.ndarray


def verdict(truth: Truth, found: Detections, threshold: float) -> Verdict:
    """Match the detections above a threshold with true boxes of an overlap of at least 0.5, best scores first.

    A detection takes the free box of its class with the largest overlap, else a free one of another class. Detections
    in crowds are ignored.
    """
    kept = np.flatnonzero(found.scores >= threshold)
    crowd = np.zeros(len(truth.boxes), bool) if truth.crowd is None else truth.crowd
    shares = overlaps(found.boxes[kept].reshape(-1, 4), np.asarray(truth.boxes, "float32").reshape(-1, 4))
    same = found.labels[kept][:, None] == np.asarray(truth.labels)[None]
    ignored = _inside(found.boxes[kept], truth.boxes[crowd]) if crowd.any() else np.zeros(len(kept), bool)
    partner, free = np.full(len(kept), -1), ~crowd
    for allowed in (same, ~same):
        for row in range(len(kept)):
            if partner[row] >= 0 or not len(free):
                continue
            fitting = np.where(allowed[row] & free, shares[row], 0)
            best = int(fitting.argmax())
            if fitting[best] >= MATCHED:
                partner[row], free[best] = best, False
    keep = (partner >= 0) | ~ignored
    near = (partner < 0) & (np.where(same & free[None], shares, 0).max(axis=1, initial=0) >= NEAR)
    return Verdict(kept[keep], partner[keep], near[keep], np.flatnonzero(free))


def _inside(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Whether most of each box lies in a crowd."""
    low = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    return (shared / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)[:, None]).max(axis=1) >= MATCHED


@dataclass(frozen=True)
class ClassBoxes:
    """One class at the threshold.

    Args:
        ap: Float, COCO's average precision.
        precision, recall: Floats at the threshold and an overlap of 0.5; nan without detections or true boxes.
        boxes: Int, true boxes.
        found: Int, detections at the threshold.
    """

    ap: float
    precision: float
    recall: float
    boxes: int
    found: int


@dataclass(frozen=True, eq=False)
class BoxEvaluation:
    """Figures of a detector on some images.

    Args:
        samples: Int, images.
        ap: `AveragePrecision`.
        threshold: Float, score from which detections are counted in what follows.
        classes: `ClassBoxes` of each class.
        confusion: Int array of shape `(classes + 1, classes + 1)`, rows true, columns detected; the last row counts
            detections of nothing, the last column missed boxes.
        verdicts: `Verdict` of each image.
    """

    samples: int
    ap: AveragePrecision
    threshold: float
    classes: tuple[ClassBoxes, ...]
    confusion: np.ndarray
    verdicts: tuple[Verdict, ...]

    @property
    def mistakes(self) -> np.ndarray:
        """Int array of shape `(N, 3)`: missed, false and badly placed boxes of each image.

        A badly placed detection counts once, not as a false and a missed one.
        """
        rows = []
        for each in self.verdicts:
            near = int(each.near.sum())
            false = int((each.partner < 0).sum()) - near
            rows.append((max(0, len(each.missed) - near), false, near))
        return np.array(rows, int).reshape(-1, 3)


def evaluate_boxes(scenes: Scenes, classes: int, threshold: float = 0.5) -> BoxEvaluation:
    """Evaluate detections.

    Args:
        scenes: `Scenes`.
        classes: Int, number of classes.
        threshold: Float, score of the detections that are counted one by one; average precision needs none.

    Raises:
        UserError: There is no true box, or faster-coco-eval is not installed.
    """
    precision = average_precision(scenes.truth, scenes.found, classes)
    verdicts = tuple(verdict(*pair, threshold) for pair in zip(scenes.truth, scenes.found, strict=True))
    confusion = np.zeros((classes + 1, classes + 1), int)
    for truth, found, own in zip(scenes.truth, scenes.found, verdicts, strict=True):
        rows = np.where(own.partner >= 0, np.append(truth.labels, classes)[own.partner], classes)
        np.add.at(confusion, (rows, found.labels[own.kept]), 1)
        np.add.at(confusion, (np.asarray(truth.labels)[own.missed], classes), 1)
    right, true, said = np.diag(confusion)[:-1], confusion[:-1].sum(axis=1), confusion[:, :-1].sum(axis=0)
    with np.errstate(invalid="ignore"):
        shares = zip(precision.by_class, right / said, right / true, true.tolist(), said.tolist(), strict=True)
        each = tuple(ClassBoxes(ap, float(p), float(r), boxes, count) for ap, p, r, boxes, count in shares)
    return BoxEvaluation(len(scenes.truth), precision, threshold, each, confusion, verdicts)


def precision_recall_points(scenes: Scenes, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of a class at an overlap of 0.5, as the threshold falls.

    Args:
        scenes: `Scenes`.
        number: Int, the class.

    Returns:
        Recall, precision and score after each detection, best first; empty without detections or true boxes.
    """
    scores, hits, boxes = [], [], 0
    for truth, found in zip(scenes.truth, scenes.found, strict=True):
        mine, own = np.asarray(truth.labels) == number, found.labels == number
        crowd = None if truth.crowd is None else truth.crowd[mine]
        boxes += int(mine.sum() if crowd is None else (~crowd).sum())
        part = Detections(found.boxes[own], found.scores[own], found.labels[own])
        each = verdict(Truth(truth.boxes[mine], truth.labels[mine], crowd), part, 0.0)
        scores.append(part.scores[each.kept])
        hits.append(each.partner >= 0)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    if not boxes or not len(order):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    right = np.cumsum(np.concatenate(hits)[order])
    return right / boxes, right / np.arange(1, len(order) + 1), np.concatenate(scores)[order]


def worst_scenes(found: BoxEvaluation, count: int) -> list[int]:
    """Numbers of the images with the most missed, false and badly placed boxes, most first."""
    totals = found.mistakes.sum(axis=1)
    return [int(place) for place in np.argsort(-totals, kind="stable")[:count]]


def labels_of(outputs: Sequence[str] | int) -> list[str]:
    """Names of classes with `"nothing"` as the last, for a confusion matrix."""
    names = list(outputs) if not isinstance(outputs, int) else [str(number) for number in range(outputs)]
    return [*names, "nothing"]
