"""From the outputs of a detector to detections: decoding and non-maximum suppression. numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_effnet.detection.boxes import decode, overlaps
from keras_effnet.errors import UserError, whole_number


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections in one image, best first.

    Args:
        boxes: float32 array of shape `(D, 4)`: y0, x0, y1, x1 in pixels, within the image.
        scores: float32 array of shape `(D,)`, 0 to 1.
        labels: int32 array of shape `(D,)`, numbers of classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> Detections:
        """Those with a score of at least a threshold."""
        kept = self.scores >= threshold
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept])


def _candidates(scores: np.ndarray, threshold: float, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Anchors and classes of the best scores above a threshold, best first."""
    flat = scores.reshape(-1)
    found = np.flatnonzero(flat > threshold)
    if len(found) > limit:  # early epochs: hundreds of thousands of scores of about 0.01
        found = found[np.argpartition(flat[found], len(found) - limit)[-limit:]]
    found = found[np.lexsort((found, -flat[found]))]  # ties by position, so that results are reproducible
    return np.divmod(found, scores.shape[1])


def _kept(boxes: np.ndarray, labels: np.ndarray, overlap: float, limit: int) -> np.ndarray:
    """Greedy suppression within each class, of boxes in order of their scores; at most `limit` steps."""
    alive = np.arange(len(boxes))
    kept: list[int] = []
    while len(alive) and len(kept) < limit:
        best, alive = alive[0], alive[1:]
        kept.append(best)
        covered = overlaps(boxes[best][None], boxes[alive])[0] > overlap
        alive = alive[~(covered & (labels[alive] == labels[best]))]
    return np.array(kept, dtype=int)


def detections(
    codes: np.ndarray,
    scores: np.ndarray,
    anchors: np.ndarray,
    image_size: tuple[int, int],
    *,
    score_threshold: float = 0.01,
    overlap_threshold: float = 0.5,
    max_detections: int = 100,
    max_candidates: int = 1000,
) -> Detections:
    """Decode the outputs of a detector for one image and suppress overlapping boxes of the same class.

    Args:
        codes: Array of shape `(anchors, 4)`, output `"boxes"`.
        scores: Array of shape `(anchors, classes)`, output `"scores"`, 0 to 1.
        anchors: Array of shape `(anchors, 4)`, from `anchor_boxes`.
        image_size: Height and width of the network's input in pixels; boxes are clipped to it, after
            suppression, as `TFLite_Detection_PostProcess` and TensorFlow's suppression have it.
        score_threshold: Float, scores at or below it are ignored.
        overlap_threshold: Float, intersection over union above which the box with the lower score is dropped. Each
            class is suppressed by itself (regular suppression): across classes it costs 2 to 3 points of AP.
        max_detections: Int, detections kept per image, of all classes together.
        max_candidates: Int, scores that take part, the best ones.

    Returns:
        `Detections`.

    Raises:
        UserError: The arrays do not belong together.
    """
    limit = whole_number("max_detections", max_detections)
    most = whole_number("max_candidates", max_candidates)
    count = len(anchors)
    if np.shape(codes) != (count, 4) or np.ndim(scores) != 2 or len(scores) != count:
        raise UserError(
            f"{count:,} anchors need codes of shape ({count}, 4) and scores of shape ({count}, classes), got "
            f"{np.shape(codes)} and {np.shape(scores)}: use the anchors of this detector at this size."
        )
    places, labels = _candidates(np.asarray(scores), score_threshold, most)
    height, width = image_size
    boxes = decode(np.asarray(codes)[places], anchors[places])
    kept = _kept(boxes, labels, overlap_threshold, limit)
    return Detections(
        np.clip(boxes[kept], 0, [height, width, height, width]).astype("float32"),
        np.asarray(scores)[places[kept], labels[kept]].astype("float32"),
        labels[kept].astype("int32"),
    )
