"""How well the anchors of a detector fit a data set, and which would fit better. numpy.

A true box without an anchor of intersection over union of 0.5 has a single positive anchor, and its class is learned
badly: at 256 pixels 29% of the platelets of a blood cell data set had one, and their AP50 was 0.17
beside 0.86 and 0.97.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.boxes import overlaps
from keras_effnet.errors import UserError

_SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_ROUNDS = 50


@dataclass(frozen=True)
class AnchorFit:
    """Fit of anchors to true boxes.

    Args:
        reached: Float 0 to 1, share of the boxes that an anchor overlaps by at least 0.5.
        mean_overlap: Float 0 to 1, mean overlap of the boxes with their best anchors.
        by_class: Share `reached` of every class, nan without boxes.
    """

    reached: float
    mean_overlap: float
    by_class: tuple[float, ...]


def best_overlaps(spec: DetectorSpec, boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Overlap of every box with its best anchor.

    Args:
        spec: `DetectorSpec`.
        boxes: Array of shape `(B, 4)` in pixels of the network's input.
        image_size: Height and width of that input.

    Returns:
        An array of shape `(B,)`, 0 to 1.
    """
    anchors = anchor_boxes(spec, image_size)
    pieces = np.array_split(boxes, max(1, len(boxes) // 32))  # 32 boxes and 20,000 anchors take 15 MB
    return np.concatenate([overlaps(piece, anchors).max(axis=1) for piece in pieces])


def anchor_fit(
    spec: DetectorSpec, boxes: np.ndarray, labels: np.ndarray, image_size: tuple[int, int], overlap: float = 0.5
) -> AnchorFit:
    """Measure how many true boxes the anchors of a detector reach.

    Args:
        spec: `DetectorSpec`.
        boxes: Array of shape `(B, 4)`, boxes of a data set in pixels of the network's input.
        labels: Int array of shape `(B,)`, numbers of classes.
        image_size: Height and width of that input.
        overlap: Float, from which an anchor is positive.

    Raises:
        UserError: There are no boxes.
    """
    if not len(boxes):
        raise UserError("The fit of anchors needs at least one box.")
    best = best_overlaps(spec, np.asarray(boxes, "float32"), image_size)
    hit = best >= overlap
    shares = (hit[labels == number] for number in range(spec.classes))
    by_class = tuple(float(share.mean()) if share.size else float("nan") for share in shares)
    return AnchorFit(float(hit.mean()), float(best.mean()), by_class)


def proposed_aspects(boxes: np.ndarray, count: int = 3) -> tuple[tuple[float, float], ...]:
    """Factors of width and height for anchors, by k-means of the logarithms of width / height.

    Args:
        boxes: Array of shape `(B, 4)` of true boxes in pixels of the network's input.
        count: Int, number of aspects.

    Returns:
        Pairs with a product of 1, from wide to high.

    Raises:
        UserError: There are fewer boxes than aspects, or one is empty.
    """
    sizes = np.asarray(boxes, float)[:, 2:] - np.asarray(boxes, float)[:, :2]
    if len(sizes) < count or (sizes <= 0).any():
        raise UserError(f"{count} aspects need at least as many boxes, each of positive height and width.")
    ratios = np.sort(np.log(sizes[:, 1] / sizes[:, 0]))
    centers = np.quantile(ratios, (np.arange(count) + 0.5) / count)
    for _ in range(_ROUNDS):
        nearest = np.abs(ratios[:, None] - centers).argmin(axis=1)
        moved = np.array([ratios[nearest == i].mean() if (nearest == i).any() else centers[i] for i in range(count)])
        if np.allclose(moved, centers):
            break
        centers = moved
    roots = np.exp(centers / 2)[::-1]
    return tuple((round(float(root), 2), round(float(1 / root), 2)) for root in roots)


def proposed_anchors(
    spec: DetectorSpec,
    boxes: np.ndarray,
    labels: np.ndarray,
    image_size: tuple[int, int],
    *,
    scales: Sequence[float] = _SCALES,
    smallest: float = 0.7,
    gain: float = 0.0,
) -> DetectorSpec:
    """The detector with the anchor scale, and where it helps the aspects, that reach most true boxes.

    The share of boxes reached is that of each class, averaged over classes, so that a rare class of small objects
    counts as much as a frequent one of large objects, and averaged over the boxes at full size and at the smallest
    that training shows.

    Args:
        spec: `DetectorSpec`.
        boxes: Array of shape `(B, 4)` of true boxes in pixels of the network's input.
        labels: Int array of shape `(B,)`, numbers of classes.
        image_size: Height and width of that input.
        scales: Anchor scales to try.
        smallest: Float in (0, 1], smallest scale of an image in training, `TrainConfig.scale_low`.
        gain: Float, share of the boxes that other anchors must reach in addition, or half of the mean overlap that
            they must add; otherwise `spec` is returned.

    Returns:
        `spec`, perhaps with another `anchor_scale` and other `aspects`: the best by the share reached, then by the mean
        overlap. Weights trained with other anchors have to be trained again.
    """
    boxes = np.asarray(boxes, "float32")
    choices = {spec.aspects, proposed_aspects(boxes, len(spec.aspects))}
    candidates = [replace(spec, anchor_scale=scale, aspects=aspects) for scale in scales for aspects in sorted(choices)]

    def quality(candidate: DetectorSpec) -> tuple[float, float]:
        fits = [anchor_fit(candidate, boxes * shown, labels, image_size) for shown in (1.0, smallest)]
        return round(float(np.mean([np.nanmean(fit.by_class) for fit in fits])), 2), fits[0].mean_overlap

    (reached, overlap), best = max(((quality(each), each) for each in candidates), key=lambda pair: pair[0])
    before = quality(spec)
    return best if reached > before[0] + gain or overlap > before[1] + 2 * gain else spec
