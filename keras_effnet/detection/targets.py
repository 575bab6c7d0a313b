"""Assignment of true boxes to anchors as TensorFlow operations, for `tf.data.Dataset.map`.

The overlap of a box with all anchors of a level is an outer product: heights depend on the row, widths on the column.
One multiplication per anchor and box is left of the usual dozen, and everything after the comparison is sparse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.detection.anchors import anchor_boxes, level_sizes

BACKGROUND = -1


@dataclass(frozen=True, eq=False)
class _Level:
    """Edges of the anchors of one level: rows of shape `(height, kinds, 2)`, columns of shape `(width, kinds, 2)`."""

    rows: np.ndarray
    columns: np.ndarray

    @property
    def areas(self) -> np.ndarray:
        """Areas by kind: all anchors of a kind have the same size."""
        (row, column) = (self.rows[0], self.columns[0])
        return (row[:, 1] - row[:, 0]) * (column[:, 1] - column[:, 0])


@dataclass(frozen=True, eq=False)
class TargetAssigner:
    """Assigns true boxes to the anchors of a detector.

    An anchor is positive if its intersection over union with a true box is at least `overlap`; it belongs to the box
    with the largest. Every true box also gets its best anchor, unless it overlaps none.

    Args:
        spec: `DetectorSpec`.
        image_size: Height and width of the network's input in pixels.
        overlap: Float in (0, 1), 0.5 in the paper.

    Example:

    >>> assign = TargetAssigner(keras_effnet.detector_spec("det-lite0"), (320, 320))
    >>> dataset = dataset.map(lambda image, boxes, labels: (image, assign(boxes, labels)))
    """

    spec: DetectorSpec
    image_size: tuple[int, int]
    overlap: float = 0.5

    def __post_init__(self) -> None:
        anchors = anchor_boxes(self.spec, self.image_size)
        object.__setattr__(self, "_anchors", anchors)
        object.__setattr__(self, "_levels", self._by_level(anchors))

    def _by_level(self, anchors: np.ndarray) -> list[_Level]:
        kinds, start, found = self.spec.anchors_per_cell, 0, []
        for height, width in level_sizes(self.spec, self.image_size):
            end = start + height * width * kinds
            grid = anchors[start:end].reshape(height, width, kinds, 4)
            found.append(_Level(grid[:, 0][..., 0::2], grid[0][..., 1::2]))
            start = end
        return found

    def __call__(self, boxes: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Targets of one image.

        Args:
            boxes: float32 tensor of shape `(B, 4)`: y0, x0, y1, x1 in pixels of the network's input. B may be 0.
            labels: int32 tensor of shape `(B,)`, numbers of classes from 0.

        Returns:
            A dict: `"labels"`, an int32 tensor of shape `(anchors,)` with -1 for background, and `"codes"`, a float32
            tensor of shape `(anchors, 4)`, 0 for background.
        """
        anchors = vars(self)["_anchors"]
        owner = self._owners(boxes)
        positive = tf.where(owner >= 0)
        own = tf.gather(owner, positive[:, 0])
        codes = _encode(tf.gather(boxes, own), tf.gather(tf.constant(anchors), positive[:, 0]))
        ids = tf.tensor_scatter_nd_update(
            tf.fill((len(anchors),), BACKGROUND), positive, tf.gather(tf.cast(labels, tf.int32), own)
        )
        return {"labels": ids, "codes": tf.scatter_nd(positive, codes, tf.constant(anchors.shape, tf.int64))}

    def _owners(self, boxes: tf.Tensor) -> tf.Tensor:
        """Number of the true box that each anchor belongs to, -1 for none."""
        ratios = [_ratios(boxes, level) for level in vars(self)["_levels"]]
        best = tf.reduce_max(tf.stack([tf.reduce_max(each, axis=1) for each in ratios]), axis=0)  # (B,)
        # intersection / (sum of both areas) is IoU / (1 + IoU), which orders alike.
        enough = self.overlap / (1 + self.overlap)
        bound = tf.where(best > 0, tf.minimum(best, enough), np.inf)
        places, values, start = [], [], 0
        for each, level in zip(ratios, vars(self)["_levels"], strict=True):
            found = tf.where(each >= bound[:, None])
            values.append(tf.gather_nd(each, found))
            places.append(found + tf.constant([0, start], tf.int64))
            start += level.rows.shape[0] * level.columns.shape[0] * level.rows.shape[1]
        pairs, value = tf.concat(places, axis=0), tf.concat(values, axis=0)
        return _resolved(pairs[:, 0], pairs[:, 1], value, best, enough, start)


def _resolved(
    box: tf.Tensor, anchor: tf.Tensor, value: tf.Tensor, best: tf.Tensor, enough: float, anchors: int
) -> tf.Tensor:
    """Owners of the anchors from sparse pairs of box and anchor; the best anchor of each box is its own."""
    nobody = tf.int32.max
    number = tf.cast(box, tf.int32)
    largest = tf.math.unsorted_segment_max(value, anchor, anchors)
    winner = tf.where((value >= tf.gather(largest, anchor)) & (value >= enough), number, nobody)
    owner = tf.math.unsorted_segment_min(winner, anchor, anchors)
    first = tf.where(value >= tf.gather(best, box), tf.cast(anchor, tf.int32), nobody)
    forced = tf.math.unsorted_segment_min(first, box, tf.shape(best)[0])
    known = tf.where(forced < nobody)[:, 0]
    claimed = tf.math.unsorted_segment_min(tf.cast(known, tf.int32), tf.gather(forced, known), anchors)
    owner = tf.where(claimed < nobody, claimed, owner)
    return tf.where(owner < nobody, owner, BACKGROUND)


def _ratios(boxes: tf.Tensor, level: _Level) -> tf.Tensor:
    """Intersections with all anchors of a level, divided by the sum of both areas; shape `(B, anchors)`."""
    y0, x0, y1, x1 = (boxes[:, number, None, None] for number in range(4))
    area = tf.maximum(y1 - y0, 0) * tf.maximum(x1 - x0, 0) + level.areas  # (B, 1, kinds)
    rows = tf.maximum(tf.minimum(y1, level.rows[..., 1]) - tf.maximum(y0, level.rows[..., 0]), 0) / area
    columns = tf.maximum(tf.minimum(x1, level.columns[..., 1]) - tf.maximum(x0, level.columns[..., 0]), 0)
    count = level.rows.shape[0] * level.columns.shape[0] * level.rows.shape[1]
    return tf.reshape(rows[:, :, None] * columns[:, None], (-1, count))


def _encode(boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """As `boxes.encode`."""
    size, scale = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    offset = (boxes[:, :2] + size / 2 - anchors[:, :2] - scale / 2) / scale
    return tf.concat([offset, tf.math.log(tf.maximum(size, 1e-6) / scale)], axis=1)
