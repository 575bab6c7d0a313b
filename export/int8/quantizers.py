"""Quantization of a float file with ranges: int8, int8 weights with int16 activations, optional float operators.

TensorFlow's quantizers, through `private_api`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

from keras_effnet.errors import UserError, first_line
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.mapped_images import ImageArray
from keras_effnet.export.tflite_file.schema import add_buffer, constant, operator_name, pack, parse
from keras_effnet.system import private_api


def quantize_int8(calibrated: bytes, input_type: str = "float32", float_tensors: Sequence[str] = ()) -> bytes:
    """Quantize weights (per channel) and activations to int8; only a final softmax or sigmoid stays in float.

    In int8 both have steps of 1/256, which round most of a thousand probabilities to 0.

    Args:
        calibrated: A float file with ranges.
        input_type: `"float32"` or `"uint8"`.
        float_tensors: Names of the output tensors of operators that stay in float.
    """
    return private_api.quantize_int8(
        calibrated,
        input_type=input_type,
        float_operators=["SOFTMAX"],
        float_tensors=[*float_tensors, *_final_sigmoids(calibrated)],
    )


def _final_sigmoids(content: bytes) -> list[str]:
    """Names of the outputs of a file that are sigmoids."""
    model = parse(content)
    graph = model.subgraphs[0]
    ends = set(map(int, graph.outputs))
    made = [int(each.outputs[0]) for each in graph.operators if operator_name(model, each) == "LOGISTIC"]
    return [graph.tensors[index].name.decode() for index in made if index in ends]


def logits(content: bytes) -> list[str]:
    """Names of the outputs of fully connected operators that are outputs of a float file, or feed its probabilities.

    In int8 the logits have 256 steps over all classes, in which similar classes are tied.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    makers = {int(index): operator for operator in graph.operators for index in operator.outputs}
    found = []
    for index in map(int, graph.outputs):
        if operator_name(model, makers[index]) in ("SOFTMAX", "LOGISTIC"):
            index = int(makers[index].inputs[0])
        if operator_name(model, makers[index]) == "FULLY_CONNECTED":
            found.append(graph.tensors[index].name.decode())
    return found


def best_calibrated(graph: FloatGraph, images: ImageArray) -> bytes:
    """Return the float file with minmax or with percentile ranges, whichever gives the better int8 SQNR.

    Args:
        graph: `FloatGraph`.
        images: Array of shape `(N, height, width, channels)`, in the graph's input range.
    """
    answers = TFLiteModel(graph.content).predict(images)

    def fidelity(calibrated: Callable[[], bytes]) -> float:
        return graph.outputs.sqnr_db(answers, TFLiteModel(quantize_int8(calibrated())).predict(images))

    return max((lambda: graph.minmax, lambda: graph.percentile), key=fidelity)()  # one of the large files at a time


def quantize_int16x8(calibrated: bytes) -> bytes:
    """Quantize weights to int8, activations to int16, biases to int64; final softmaxes and sigmoids stay in float.

    Raises:
        UserError: The quantizer has no int16 form of an operator.
    """
    try:
        quantized = private_api.quantize_int16x8(_with_own_biases(calibrated))
    except RuntimeError as error:
        raise UserError(
            f"The network has no int16x8 file: {first_line(error)} Use another precision, such as int8 or mixed."
        ) from None
    return _with_float_probabilities(quantized)


def _with_own_biases(content: bytes) -> bytes:
    """Give each operator a bias of its own: the quantizer scales one that several read by the input of one of them."""
    model = parse(content)
    graph = model.subgraphs[0]
    taken: set[int] = set()
    for operator in graph.operators:
        inputs = [int(index) for index in operator.inputs]
        for place, index in enumerate(inputs[2:], 2):
            if index in taken and (values := constant(model, index)) is not None:
                graph.tensors.append(copy(graph.tensors[index]))
                graph.tensors[-1].buffer = add_buffer(model, values)
                inputs[place] = len(graph.tensors) - 1
        taken.update(inputs)
        operator.inputs = inputs
    return pack(model)


def _with_float_probabilities(content: bytes) -> bytes:
    """Replace each final int16 softmax or sigmoid and DEQUANTIZE by a DEQUANTIZE and the same operator in float.

    In int16 it has steps of 1/32768, which round most of a thousand probabilities to 0.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    graph = model.subgraphs[0]
    makers = {int(index): place for place, operator in enumerate(graph.operators) for index in operator.outputs}
    for output in map(int, graph.outputs):
        dequantize = graph.operators[makers[output]]
        place = makers.get(int(dequantize.inputs[0]))
        if operator_name(model, dequantize) != "DEQUANTIZE" or place is None:
            continue
        last = graph.operators[place]
        if operator_name(model, last) not in ("SOFTMAX", "LOGISTIC"):
            continue
        between = graph.tensors[last.outputs[0]]
        between.type, between.quantization = schema.TensorType.FLOAT32, None
        dequantize.inputs, last.inputs = last.inputs, last.outputs
        dequantize.outputs, last.outputs = last.inputs, dequantize.outputs
        graph.operators[place], graph.operators[makers[output]] = dequantize, last
    return pack(model)
