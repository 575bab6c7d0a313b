"""Detections of an artifact: its outputs decoded with its anchors, and boxes in pixels of the original image. numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.boxes import input_scales
from keras_effnet.detection.suppression import Detections
from keras_effnet.errors import UserError
from keras_effnet.evaluation.by_task.boxes import found_boxes
from keras_effnet.inference.artifacts import Artifact
from keras_effnet.preprocessing import ImageSpec


def input_size(artifact: Artifact) -> tuple[int, int]:
    """Height and width of the input of an artifact."""
    return artifact.image_spec.size, artifact.image_spec.size


def anchors_of(artifact: Artifact) -> np.ndarray:
    """Anchors of a detector at the size of its input.

    Raises:
        UserError: They are not known.
    """
    if artifact.detector is None:
        raise UserError(
            f"The anchors of {artifact.path} are not known: put the detector.json of its run folder beside it."
        )
    return anchor_boxes(artifact.detector, input_size(artifact))


def detect(artifact: Artifact, images: np.ndarray, **options: Any) -> list[Detections]:
    """Detect in images at the size of the network's input.

    Args:
        artifact: `Artifact` of a detector.
        images: Array of shape `(N, size, size, 3)`, values 0..255.
        **options: Those of `detection.detections`, such as `score_threshold=0.5`.

    Returns:
        `Detections` of each image, boxes in pixels of the input.

    Raises:
        UserError: The network is no detector, or its anchors are not known.

    Example:

    >>> from keras_effnet.inference import artifacts, detecting
    >>> found = detecting.detect(artifacts.load("runs/train/cells"), images, score_threshold=0.5)
    """
    if artifact.task != "detection":
        raise UserError(f"{artifact.path} is no detector: its task is {artifact.task}.")
    outputs: Mapping[str, np.ndarray] = artifact.predict(images)
    return found_boxes(outputs, anchors_of(artifact), input_size(artifact), **options)


def original_scale(image_spec: ImageSpec, size: Sequence[int]) -> np.ndarray:
    """Pixels of the input per pixel of an original image, vertical and horizontal; boxes are divided by it.

    Args:
        image_spec: `ImageSpec` of a detector.
        size: Height and width of the upright original image.
    """
    return input_scales(np.asarray(size)[None], image_spec.size, image_spec.fit)[0]
