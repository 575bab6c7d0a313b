"""The precisions: for each a small recipe from the serving function to the bytes of a `.tflite` file.

Imports `calibration`, `errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_effnet.export.calibration import span_input_range

INPUT_TYPES = ("float32", "uint8")


@dataclass(frozen=True)
class Recipe:
    """How a precision is made, and what its file must reach to be kept.

    Args:
        convert: Function `(serving_function, calibration pictures or None, input_type) -> bytes`.
        needs_calibration: Bool.
        weight_bytes: Float, least bytes a weight takes in the file.
        min_agreement: Float in [0, 1], least share of pictures with the float model's most probable class.
        min_sqnr_db: Float, least signal-to-quantization-noise ratio of the logits.
    """

    convert: Callable[..., bytes]
    needs_calibration: bool
    weight_bytes: float
    min_agreement: float
    min_sqnr_db: float


def _converter(function) -> tf.lite.TFLiteConverter:
    # Without a trackable: with a Keras 3 model as second argument the weights stay out of the file.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # never Flex
    return converter


def _float32(function, pictures, input_type) -> bytes:
    return _converter(function).convert()


def _float16(function, pictures, input_type) -> bytes:
    """Weights in float16, arithmetic in float32 on CPUs and float16 on GPUs."""
    converter = _converter(function)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _dynamic(function, pictures, input_type) -> bytes:
    """Weights in int8, activations quantized while running."""
    converter = _converter(function)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _int8(function, pictures: np.ndarray, input_type: str) -> bytes:
    """Weights and activations in int8, per-channel; the softmax alone stays float.

    An int8 softmax has steps of 1/256, under which most of a thousand probabilities vanish.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    pictures = span_input_range(pictures)
    converter = _converter(function)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([picture[None]] for picture in pictures)
    converter._experimental_calibrate_only = True  # the public switch quantizes every operator or none
    return mlir_quantize(
        converter.convert(),
        input_data_type=tf.dtypes.as_dtype(input_type),
        output_data_type=tf.float32,
        denylisted_ops=["SOFTMAX"],
    )


# int8 bounds are set so that per-tensor weights (80% agreement on Lite0) and ranges from noise (76%) fail them.
#                        convert  calibration weight_bytes agreement sqnr_db
RECIPES: dict[str, Recipe] = {
    "none": Recipe(_float32, False, 4.0, 0.999, 60.0),
    "float16": Recipe(_float16, False, 2.0, 0.99, 30.0),
    "dynamic": Recipe(_dynamic, False, 1.0, 0.95, 12.0),
    "int8": Recipe(_int8, True, 1.0, 0.90, 10.0),
}
