"""Quantization of a float file with ranges: int8, int8 weights with int16 activations, optional float operators.

TensorFlow's quantizers, through `private_api`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import operator_name, pack, parse
from keras_effnet.export.verification import sqnr_db
from keras_effnet.system import private_api


def quantize_int8(calibrated: bytes, input_type: str = "float32", float_tensors: Sequence[str] = ()) -> bytes:
    """Quantize weights (per channel) and activations to int8; only the softmax stays in float.

    An int8 softmax has steps of 1/256, which round most of a thousand probabilities to 0.

    Args:
        calibrated: A float file with ranges.
        input_type: `"float32"` or `"uint8"`.
        float_tensors: Names of the output tensors of operators that stay in float.
    """
    return private_api.quantize_int8(
        calibrated, input_type=input_type, float_operators=["SOFTMAX"], float_tensors=float_tensors
    )


def best_calibrated(graph: FloatGraph, images: np.ndarray) -> bytes:
    """Return the float file with minmax or with percentile ranges, whichever gives the better int8 SQNR.

    Args:
        graph: `FloatGraph`.
        images: Array of shape `(N, height, width, channels)`, in the graph's input range.
    """
    answers = TFLiteModel(graph.content).predict(images)

    def fidelity(calibrated: bytes) -> float:
        return sqnr_db(answers, TFLiteModel(quantize_int8(calibrated)).predict(images))

    return max((graph.minmax, graph.percentile), key=fidelity)


def quantize_int16x8(calibrated: bytes) -> bytes:
    """Quantize weights to int8, activations to int16 and biases to int64; only the softmax stays in float."""
    return _with_float_softmax(private_api.quantize_int16x8(calibrated))


def _with_float_softmax(content: bytes) -> bytes:
    """Replace a final int16 softmax and DEQUANTIZE by a DEQUANTIZE and a float softmax.

    An int16 softmax has steps of 1/32768, which round most of a thousand probabilities to 0.
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
