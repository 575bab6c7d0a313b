"""Refusal of networks whose weights, activations or predictions are not finite. Keras and numpy.

The quantizer computes infinite or NaN scales from such values, and LiteRT crashes when it prepares the file.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_effnet.errors import UserError

LARGEST = 1e30  # beyond this, scales and their products overflow float32; trained networks stay far below
_CURE = "The training has probably diverged: use an earlier checkpoint, or train with a lower learning rate."


def describe_defect(low: float, high: float) -> str:
    """Describe a range that is NaN, infinite or beyond `LARGEST`; empty if it is none of these."""
    if np.isnan([low, high]).any():
        return "NaN"
    if not np.isfinite([low, high]).all():
        return "infinite values"
    largest = max(abs(low), abs(high))
    return f"values of {largest:.2g}, beyond {LARGEST:.0e}" if largest > LARGEST else ""


def check_weights(model: keras.Model) -> None:
    """Check that all weights of a model are finite and of plausible size.

    Raises:
        UserError: A weight is not; the message names its layer.
    """
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))
        if not values.size:
            continue
        if defect := describe_defect(float(values.min()), float(values.max())):
            layer, _, weight = variable.path.rpartition("/")
            raise UserError(f"The {weight} of layer {layer} contains {defect}. {_CURE}")


def check_activations(layer: str, low: float, high: float) -> None:
    """Check the range of a layer's output on the calibration images.

    Raises:
        UserError: The range is not finite or not plausible.
    """
    if defect := describe_defect(low, high):
        raise UserError(f"The output of {layer} contains {defect} on the calibration images. {_CURE}")


def check_predictions(model: keras.Model, images: np.ndarray, predictions: np.ndarray) -> None:
    """Check that images and a model's predictions of them are finite.

    A finite prediction does not prove finite images: on some processors ReLU makes 0 of NaN.

    Args:
        model: Functional Keras model.
        images: Array of shape `(N, height, width, channels)` that the model predicted.
        predictions: Array of shape `(N, ...)`.

    Raises:
        UserError: An image or a prediction is not finite; the message names the first layer whose output is not.
    """
    unusable = ~np.isfinite(images).all(axis=(1, 2, 3))
    if unusable.any():
        raise UserError(f"{unusable.sum()} of {len(images)} images contain NaN or infinite values.")
    broken = ~np.isfinite(predictions).all(axis=tuple(range(1, predictions.ndim)))
    if not broken.any():
        return
    image = images[np.flatnonzero(broken)[:1]]
    raise UserError(
        f"The model returns NaN or infinite values for {broken.sum()} of {len(predictions)} images; the first layer "
        f"whose output contains them is {_first_broken(model, image)}. {_CURE}"
    )


def _first_broken(model: keras.Model, image: np.ndarray) -> str:
    """Name of the first layer whose output for an image is not finite."""
    outputs = keras.Model(model.inputs, [layer.output for layer in model.layers]).predict_on_batch(image)
    for layer, output in zip(model.layers, outputs, strict=True):
        if not np.isfinite(output).all():
            return layer.name
    return model.layers[-1].name
