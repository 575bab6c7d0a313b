"""Per-layer quantization error: SQNR of every layer's output against the float file. Keras, LiteRT and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_effnet.evaluation.agreement import tensor_sqnr
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.tensors import activations, output_tensors

LOST_DB = 6.0  # noise of half the signal's amplitude: the tensor is lost for the following layers
_IMAGES, _PIXELS = 4, 4 * 224**2  # upper bounds; each input pixel gives dozens of values


@dataclass(frozen=True)
class LayerError:
    """Quantization error of one layer's output.

    Args:
        layer: String, name of the Keras layer.
        sqnr_db: Float, variance of the float file's tensor over the mean squared difference, in decibels.
    """

    layer: str
    sqnr_db: float


def measure_layer_errors(content: bytes, graph: FloatGraph, pixels: np.ndarray) -> tuple[LayerError, ...]:
    """Measure the error of each layer whose output is a tensor of both files, in execution order.

    Args:
        content: Bytes of a file that was quantized from `graph`.
        graph: `FloatGraph`.
        pixels: Array of shape `(N, height, width, channels)`, values 0..255; the first few are used.
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
        LayerError(name, tensor_sqnr(signal, noisy))
        for name, (_, noisy), (_, signal) in zip(both, got, expected, strict=True)
        if noisy.shape == signal.shape
    )


def first_lost(errors: Sequence[LayerError]) -> LayerError | None:
    """Return the first layer with an SQNR below `LOST_DB`, or None."""
    return next((error for error in errors if error.sqnr_db < LOST_DB), None)
