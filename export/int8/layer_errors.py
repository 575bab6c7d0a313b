"""Where a file loses the signal: the error of every layer's output, beside the float file that it was made from.

Imports `conversion`, `interpreter`, `tensors` beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_effnet.export.conversion import FloatGraph
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.tensors import activations, output_tensors
from keras_effnet.export.verification import sqnr_db

LOST_DB = 6.0  # noise of half the signal's amplitude: what a layer makes of such a tensor is its own invention
_IMAGES, _PIXELS = 4, 4 * 224**2  # at most; each pixel of the input gives dozens of values


@dataclass(frozen=True)
class LayerError:
    """How much of a layer's output is left.

    Args:
        layer: String, name of the Keras layer.
        sqnr_db: Float, power of the float file's tensor, less its mean, over the power of the difference, in decibels.
    """

    layer: str
    sqnr_db: float


def measure_layer_errors(content: bytes, graph: FloatGraph, pixels: np.ndarray) -> tuple[LayerError, ...]:
    """The error of each layer whose output both files have, in the order of execution.

    Args:
        content: The bytes of a file that was made from `graph`.
        graph: `FloatGraph`.
        pixels: Array of shape `(N, height, width, channels)`, values 0..255, of which the first few are used.
    """
    pixels = pixels[: max(1, min(_IMAGES, _PIXELS // pixels[0, :, :, 0].size))]
    names = {layer.name for layer in graph.model.layers}
    ours, floats = output_tensors(content, names), output_tensors(graph.content, names)
    both = [name for name in ours if name in floats]
    file = TFLiteModel(content)
    fed = np.stack([file.quantized_input(image) for image in pixels])
    got = activations(content, [ours[name] for name in both], fed)
    expected = activations(graph.content, [floats[name] for name in both], graph.inputs(pixels))
    return tuple(
        LayerError(name, sqnr_db(signal, noisy, per="tensor"))
        for name, (_, noisy), (_, signal) in zip(both, got, expected, strict=True)
        if noisy.shape == signal.shape
    )


def first_lost(errors: Sequence[LayerError]) -> LayerError | None:
    """The first layer whose output is more noise than signal for what follows, or None."""
    return next((error for error in errors if error.sqnr_db < LOST_DB), None)
