"""Boxes in bundles and on pages: the rule in `model.json`, the file of anchors, expected answers. numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_effnet.detection.suppression import detections
from keras_effnet.errors import UserError
from keras_effnet.evaluation.by_task.box_agreement import COUNTED
from keras_effnet.export.app_bundle.document import ANCHORS, Answer, BoxRule, ImageRule, ModelDocument
from keras_effnet.export.tflite_file.flatbuffer import MalformedError
from keras_effnet.export.tflite_file.inspection import Inspection, inspect
from keras_effnet.export.tflite_file.metadata.detector_options import read_anchors

_OVERLAP, _MOST, _CANDIDATES = 0.5, 100, 1000  # as `detections` has them


def box_rule(path: object, found: Inspection) -> BoxRule:
    """The rule of a detector's file.

    Args:
        path: Path of the file, for messages.
        found: Its `Inspection`.

    Raises:
        UserError: The file has no anchors, or not as many as boxes.
    """
    count, boxes = len(anchors_in(found)), found.outputs[0].shape[1]
    if count != boxes:
        raise UserError(f"{path} has {boxes:,} boxes, but {count:,} anchors in its metadata: export it again.")
    return BoxRule(ANCHORS, count, COUNTED, _OVERLAP, _MOST, _CANDIDATES)


def anchors_in(found: Inspection) -> np.ndarray:
    """Anchors of a file, (y, x, height, width) in pixels of the input; none if its metadata lack them."""
    options = found.metadata.detector_options if found.metadata else b""
    try:
        shares = read_anchors(options) if options else np.zeros((0, 4), "float32")
    except MalformedError:
        shares = np.zeros((0, 4), "float32")
    height, width = found.inputs[0].shape[1:3]
    return shares * np.array([height, width, height, width], "float32")


def anchor_file(path: str | Path) -> bytes:
    """Content of the file of anchors of a `.tflite` file."""
    return anchors_in(inspect(path)).astype("<f4").tobytes()


def box_answers(
    row: np.ndarray, document: ModelDocument, anchors: np.ndarray, scale: np.ndarray, names: Sequence[str]
) -> tuple[Answer, ...]:
    """All boxes of an image, best first.

    Args:
        row: Array of the outputs of one image, flattened and joined.
        document: `ModelDocument` of a detector.
        anchors: Array of shape `(anchors, 4)`, as of `anchors_in`.
        scale: Array of shape `(2,)`, pixels of the input per pixel of the image, vertically and horizontally.
        names: Names of the classes.
    """
    rule, image = document.boxes, document.image
    assert rule is not None
    codes, scores = np.split(row.ravel(), [4 * rule.count])
    centers, halves = anchors[:, :2], anchors[:, 2:] / 2
    found = detections(
        codes.reshape(-1, 4),
        scores.reshape(rule.count, -1),
        np.concatenate([centers - halves, centers + halves], axis=1),
        _size(image),
        score_threshold=rule.score_threshold,
        overlap_threshold=rule.overlap_threshold,
        max_detections=rule.max_detections,
        max_candidates=rule.max_candidates,
    )
    boxes = found.boxes / np.tile(scale, 2)
    rows = zip(found.labels.tolist(), found.scores.tolist(), boxes.tolist(), strict=True)
    return tuple(Answer(label, names[label], score, (x0, y0, x1, y1)) for label, score, (y0, x0, y1, x1) in rows)


def _size(image: ImageRule) -> tuple[int, int]:
    return image.height, image.width
