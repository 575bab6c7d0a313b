"""Agreement of two detectors' outputs for the same images: the detections that both make, and average precision. numpy.

Outputs are arrays of shape `(N, anchors, 4 + classes)`: box codes, then scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_effnet.detection.boxes import overlaps
from keras_effnet.detection.precision import Truth, average_precision
from keras_effnet.detection.suppression import Detections, detections
from keras_effnet.evaluation.agreement import Agreement, Drift, resampled

COUNTED = 0.3  # score from which a detection must be made by both
_PARTNER = 0.15  # score from which a detection is one: crossing a threshold is a drift of scores, no other box
_SAME = 0.9  # overlap of the same box
_LOWEST = 0.01  # for average precision
_TINY = 1e-12
_GROUPS = 10  # of images that are left out in turn, to see how much average precision depends on them


@dataclass(frozen=True, eq=False)
class BoxReader:
    """Reads detections from outputs, which takes the anchors, and compares them.

    Args:
        anchors: Array of shape `(anchors, 4)`, from `detection.anchor_boxes`.
        size: Height and width of the network's input in pixels.
    """

    anchors: np.ndarray
    size: tuple[int, int]

    def found(self, outputs: np.ndarray, threshold: float = _LOWEST) -> list[Detections]:
        """Detections of each image with scores above a threshold."""
        return [
            detections(each[:, :4], each[:, 4:], self.anchors, self.size, score_threshold=threshold) for each in outputs
        ]

    def agreement(self, expected: np.ndarray, got: np.ndarray) -> Agreement:
        """Share of detections, of either network, that the other makes too: same class, overlap of at least 0.9.

        Detections with scores of at least 0.3 are counted; the partner may have half of that. Without any, the share is
        1. Figure: mean change of the scores of detections that both make.
        """
        made, total, drifts = [], [], []
        for first, second in zip(self.found(expected, _PARTNER), self.found(got, _PARTNER), strict=True):
            (here, moved), (there, _) = _matched(first, second), _matched(second, first)
            made.append(here.sum() + there.sum())
            total.append(len(here) + len(there))
            drifts.append(moved)
        matched, counted, drift = np.array(made), np.array(total), np.concatenate(drifts)

        def score(chosen: np.ndarray) -> float:
            return float(matched[chosen].sum() / counted[chosen].sum()) if counted[chosen].any() else 1.0

        return resampled(score, len(expected), {"score drift": float(drift.mean()) if len(drift) else 0.0})

    def outcomes(self, outputs: np.ndarray) -> np.ndarray:
        """One number per image: 0 where nothing is found, a different one for every other image."""
        anything = outputs[:, :, 4:].max(axis=(1, 2)) >= COUNTED
        return np.where(anything, np.arange(1, len(outputs) + 1), 0)

    def drift(self, truth: Sequence[Truth], expected: np.ndarray, got: np.ndarray) -> Drift:
        """Average precision of both against true boxes in pixels of the input, and how much of it the second loses.

        Figures: AP of the second and of the first, and the same at an overlap of 0.5.
        """
        classes = expected.shape[-1] - 4
        found = [self.found(outputs) for outputs in (expected, got)]
        keras, file = (average_precision(truth, each, classes) for each in found)
        lost = keras.ap - file.ap

        def loss(chosen: np.ndarray) -> float:
            rows = [[each[index] for index in chosen] for each in (truth, *found)]
            first, second = (average_precision(rows[0], each, classes).ap for each in rows[1:])
            return first - second

        boxed = np.flatnonzero([len(each.boxes) > 0 for each in truth])
        surely = lost - 1.96 * _deviation(loss, boxed, len(truth)) if lost > 0 else lost
        figures = {"AP": file.ap, "AP of Keras": keras.ap, "AP50": file.ap50, "AP50 of Keras": keras.ap50}
        return Drift(figures, lost, surely)


def _deviation(figure: Callable[[np.ndarray], float], boxed: np.ndarray, images: int) -> float:
    """Standard deviation of a figure of images, by a jackknife that leaves out groups of the images with boxes."""
    groups = min(_GROUPS, len(boxed))
    if groups < 2:
        return np.inf
    left_out = (boxed[first::groups] for first in range(groups))
    values = np.array([figure(np.setdiff1d(np.arange(images), group)) for group in left_out])
    return float(np.sqrt((groups - 1) * values.var()))


def _matched(first: Detections, second: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Whether each counted detection of the first is made by the second, and by how much the score of those differs.

    Detections of a class overlap by less than half, so that no two can have the same partner.
    """
    counted = first.scores >= COUNTED
    if not len(second):
        return np.zeros(int(counted.sum()), bool), np.zeros(0)
    same = first.labels[counted][:, None] == second.labels[None]
    shares = np.where(same, overlaps(first.boxes[counted], second.boxes), 0.0)
    partner = shares.argmax(axis=1)
    matched = shares.max(axis=1) >= _SAME
    change = np.abs(first.scores[counted] - second.scores[partner])
    return matched, change[matched]


def box_sqnr(expected: np.ndarray, got: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in decibels where the first network finds something: codes or scores.

    The lower of both counts. If it finds nothing, all anchors are compared.
    """
    places = expected[..., 4:].max(axis=-1) >= _PARTNER
    if not places.any():
        places[:] = True
    signal, noise = expected[places], (got - expected)[places]
    return min(_ratio(signal[:, part], noise[:, part]) for part in (slice(4), slice(4, None)))


def _ratio(signal: np.ndarray, noise: np.ndarray) -> float:
    return float(10 * np.log10((np.sum(signal**2) + _TINY) / (np.sum(noise**2) + _TINY)))
