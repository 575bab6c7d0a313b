"""The spec of a trained detector: `detector.json`, or the table's by the name of the network. Keras models are read.

The anchors belong to the weights and are stored in no layer.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_effnet.architecture.detector_files import DETECTOR_JSON, load_detector
from keras_effnet.architecture.detectors import DETECTORS, DetectorSpec
from keras_effnet.architecture.pyramid import expand_detector
from keras_effnet.errors import UserError

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)


def detector_of(model: keras.Model, path: Path, saved: Path | None) -> DetectorSpec | None:
    """Spec of a detector.

    Args:
        model: Keras model with outputs `"boxes"` and `"scores"` or `"logits"`.
        path: Path of its file, for messages.
        saved: Path of its `detector.json`, or None.

    Returns:
        The saved `DetectorSpec`; without a file the table's of this name, with a warning; None if the table lacks it.

    Raises:
        UserError: The file is damaged, or belongs to a network with another number of anchors.
    """
    anchors = int(model.output["boxes"].shape[1])
    classes = int(model.output["scores" if "scores" in model.output else "logits"].shape[-1])
    size = int(model.input_shape[1])
    if saved is not None:
        return saved_detector(saved, path, anchors, classes, size)
    named = next((spec for spec in DETECTORS.values() if spec.name == model.name), None)
    if named is None:
        return None
    spec = replace(named, classes=classes, image_size=size)
    if expand_detector(spec).anchors != anchors:
        return None
    logger.warning(
        f"{path} has no {DETECTOR_JSON}: the anchors of {model.name} as published are assumed, scale "
        f"{spec.anchor_scale:g}. If it was trained with others, its boxes are wrong."
    )
    return spec


def saved_detector(saved: Path, path: Path, anchors: int, classes: int, size: int) -> DetectorSpec:
    """Spec from a `detector.json`, for a network with this input and these outputs.

    Args:
        saved: Path of the `detector.json`.
        path: Path of the network's file, for messages.
        anchors, classes: Ints, shape of the scores.
        size: Int, side of the input in pixels.

    Raises:
        UserError: The file is damaged, or belongs to a network with another number of anchors.
    """
    spec = replace(load_detector(saved), classes=classes, image_size=size)
    if (expected := expand_detector(spec).anchors) != anchors:
        raise UserError(
            f"{saved} describes {expected:,} anchors at {size} pixels, {path} has {anchors:,}: it belongs to another "
            "network."
        )
    return spec
