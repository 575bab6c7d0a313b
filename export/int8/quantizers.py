"""From a float file with ranges to integers: int8, or int8 weights with int16 activations; float where it is asked for.

Imports `conversion`, `interpreter`, `tensors`, `verification` beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_effnet.export.conversion import FloatGraph
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import operator_name, pack, parse
from keras_effnet.export.verification import sqnr_db
from keras_effnet.system import private_api


def quantize_int8(calibrated: bytes, input_type: str = "float32", float_tensors: Sequence[str] = ()) -> bytes:
    """Weights and activations in int8, weights per-channel; the softmax alone stays float.

    An int8 softmax has steps of 1/256, under which most of a thousand probabilities vanish.

    Args:
        calibrated: A float file with ranges.
        input_type: `"float32"` or `"uint8"`.
        float_tensors: Names of tensors whose operators stay in float.
    """
    return private_api.quantize_int8(
        calibrated, input_type=input_type, float_operators=["SOFTMAX"], float_tensors=float_tensors
    )


def best_calibrated(graph: FloatGraph, images: np.ndarray) -> bytes:
    """The float file with ranges of all values or of the bulk, whichever int8 answers better with.

    Args:
        graph: `FloatGraph`.
        images: Array of shape `(N, height, width, channels)`, as the graph takes them.
    """
    answers = TFLiteModel(graph.content).predict(images)

    def fidelity(calibrated: bytes) -> float:
        return sqnr_db(answers, TFLiteModel(quantize_int8(calibrated)).predict(images))

    return max((graph.minmax, graph.percentile), key=fidelity)


def quantize_int16x8(calibrated: bytes) -> bytes:
    """Weights in int8, activations in int16, biases in int64; the softmax alone stays float."""
    return _with_float_softmax(private_api.quantize_int16x8(calibrated))


def _with_float_softmax(content: bytes) -> bytes:
    """Turns a last softmax in int16 followed by a DEQUANTIZE into a DEQUANTIZE followed by a softmax in float.

    The steps of an int16 softmax, 1/32768, swallow most of a thousand probabilities.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    graph = model.subgraphs[0]
    *_, softmax, dequantize = graph.operators
    if [operator_name(model, operator) for operator in (softmax, dequantize)] != ["SOFTMAX", "DEQUANTIZE"]:
        return content
    between = graph.tensors[softmax.outputs[0]]
    between.type, between.quantization = schema.TensorType.FLOAT32, None
    dequantize.inputs, softmax.inputs = softmax.inputs, softmax.outputs
    dequantize.outputs, softmax.outputs = softmax.inputs, dequantize.outputs
    graph.operators[-2:] = [dequantize, softmax]
    return pack(model)
