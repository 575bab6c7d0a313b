"""The precisions: for each a small recipe from a Keras model to the bytes of a `.tflite` file.

Imports `calibration`, `conversion`, `equalization`, `ranges` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.export.calibration import span_input_range
from keras_effnet.export.conversion import serving_function
from keras_effnet.export.equalization import LOGISTIC_RANGE, equalize
from keras_effnet.export.ranges import percentile_ranges, scaled_swish_ranges, with_ranges
from keras_effnet.export.verification import VerifyReport

INPUT_TYPES = ("float32", "uint8")
BULK = 0.998  # of a tensor's values, where ranges do not follow the outliers

Convert = Callable[[keras.Model, np.ndarray | None, str], bytes]


@dataclass(frozen=True)
class Recipe:
    """How a precision is made, and what its file must reach to be kept.

    Args:
        methods: Name -> function `(model, calibration pictures or None, input_type) -> bytes`. Tried in order until a
            file passes: the plainest that works is the fastest.
        needs_calibration: Bool.
        weight_bytes: Float, least bytes a weight takes in the file.
        min_agreement: Float in [0, 1], least share of pictures with the float model's most probable class.
        min_sqnr_db: Float, least signal-to-quantization-noise ratio of the logits.
    """

    methods: dict[str, Convert]
    needs_calibration: bool
    weight_bytes: float
    min_agreement: float
    min_sqnr_db: float

    def accepts(self, report: VerifyReport) -> bool:
        return report.top1_agreement >= self.min_agreement and report.sqnr_db >= self.min_sqnr_db


def _converter(model: keras.Model) -> tf.lite.TFLiteConverter:
    # Without a trackable: with a Keras 3 model as second argument the weights stay out of the file.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serving_function(model)])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # never Flex
    return converter


def _float32(model, pictures, input_type) -> bytes:
    return _converter(model).convert()


def _float16(model, pictures, input_type) -> bytes:
    """Weights in float16, arithmetic in float32 on CPUs and float16 on GPUs."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _dynamic(model, pictures, input_type) -> bytes:
    """Weights in int8, activations quantized while running."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _calibrated(model, pictures: np.ndarray) -> bytes:
    """The float model with the range of every tensor."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([picture[None]] for picture in pictures)
    converter._experimental_calibrate_only = True  # the public switch quantizes every operator or none
    return converter.convert()


def _quantized(calibrated: bytes, input_type: str) -> bytes:
    """Weights and activations in int8, weights per-channel; the softmax alone stays float.

    An int8 softmax has steps of 1/256, under which most of a thousand probabilities vanish.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    return mlir_quantize(
        calibrated,
        input_data_type=tf.dtypes.as_dtype(input_type),
        output_data_type=tf.float32,
        denylisted_ops=["SOFTMAX"],
    )


def _int8_minmax(model, pictures, input_type) -> bytes:
    return _quantized(_calibrated(model, span_input_range(pictures)), input_type)


def _int8_percentile(model, pictures, input_type) -> bytes:
    """Ranges of the bulk: a few extreme values saturate, and the steps of all others shrink."""
    pictures = span_input_range(pictures)
    calibrated = _calibrated(model, pictures)
    return _quantized(with_ranges(calibrated, percentile_ranges(calibrated, pictures, BULK)), input_type)


def _int8_equalized(model, pictures, input_type) -> bytes:
    """Ranges of the bulk, and every swish equalized channel by channel; one more product for each, so slower."""
    pictures = span_input_range(pictures)
    equalized, swishes = equalize(model, pictures)
    calibrated = _calibrated(equalized, pictures)
    lows = {swish.scale.tobytes(): -swish.low for swish in swishes}
    ranges = percentile_ranges(calibrated, pictures, BULK)
    ranges |= scaled_swish_ranges(calibrated, lows, LOGISTIC_RANGE)
    return _quantized(with_ranges(calibrated, ranges), input_type)


_INT8 = {"minmax": _int8_minmax, "percentile": _int8_percentile, "equalized": _int8_equalized}

# int8 bounds are set so that per-tensor weights (80% agreement on Lite0) and ranges from noise (76%) fail them.
#                        methods                 calibration weight_bytes agreement sqnr_db
RECIPES: dict[str, Recipe] = {
    "none": Recipe({"float32": _float32}, False, 4.0, 0.999, 60.0),
    "float16": Recipe({"float16": _float16}, False, 2.0, 0.99, 30.0),
    "dynamic": Recipe({"dynamic": _dynamic}, False, 1.0, 0.95, 12.0),
    "int8": Recipe(_INT8, True, 1.0, 0.90, 10.0),
}
CALIBRATED = tuple(name for name, recipe in RECIPES.items() if recipe.needs_calibration)
