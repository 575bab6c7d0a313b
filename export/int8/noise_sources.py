"""Noise that quantization adds to the output of a network, by source: only some tensors and kernels are quantized.

A float file with ranges is run with a QUANTIZE and a DEQUANTIZE behind each chosen tensor and with rounded kernels, so
that everything else computes in float. The noise of all sources is not the sum of the parts: values that saturate shift
means, which correction removes. LiteRT and numpy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8.range_fitting import ActivationFit
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.mapped_images import ImageArray
from keras_effnet.export.tflite_file.schema import add_buffer, add_operator_code, constant, operator_name, pack, parse
from keras_effnet.export.tflite_file.tensors import layer_of

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, TensorT

# Operator -> axes over which a step of its kernel is shared.
_SHARED_STEP = {"CONV_2D": (1, 2, 3), "DEPTHWISE_CONV_2D": (0, 1, 2), "FULLY_CONNECTED": (1,)}
# Kinds of activations that are not those of a swish, by the operator that writes them.
_KINDS = {
    "LOGISTIC": "sigmoid",
    "MUL": "product with squeeze-and-excite",
    "ADD": "sum",
    "CONV_2D": "convolution without activation",
    "DEPTHWISE_CONV_2D": "convolution without activation",
}
_SAME_STEP = ("PAD", "RESHAPE")  # what they write has the step of their input
_VERSION = 2  # of QUANTIZE and DEQUANTIZE for int8


def simulated(calibrated: bytes, tensors: Collection[int], kernels: Collection[int] = ()) -> bytes:
    """Quantize some tensors of a float file to 8 bits and back, and round some kernels to 8 bits.

    Args:
        calibrated: A float file with ranges.
        tensors: Indices of activations; those without a range stay as they are.
        kernels: Indices of kernels, the constant second inputs of convolutions and fully connected operators.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(calibrated)
    graph = model.subgraphs[0]
    codes = [add_operator_code(model, getattr(schema.BuiltinOperator, n), _VERSION) for n in ("QUANTIZE", "DEQUANTIZE")]
    renamed: dict[int, int] = {}
    operators = []
    for operator in graph.operators:
        _round_kernel(model, operator, kernels)
        operator.inputs = [renamed.get(int(index), int(index)) for index in operator.inputs]
        operators.append(operator)
        for index in map(int, operator.outputs):
            if index not in tensors or not _has_range(graph.tensors[index]):
                continue
            given = index
            for code, tensor in zip(codes, _rounded_tensors(graph.tensors[index]), strict=True):
                graph.tensors.append(tensor)
                step = schema.OperatorT()
                step.opcodeIndex, step.inputs, step.outputs = code, [given], [len(graph.tensors) - 1]
                operators.append(step)
                given = len(graph.tensors) - 1
            renamed[index] = given
    graph.operators = operators
    graph.outputs = [renamed.get(int(index), int(index)) for index in graph.outputs]
    return pack(model)


def _has_range(tensor: TensorT) -> bool:
    return tensor.quantization is not None and tensor.quantization.min is not None and len(tensor.quantization.min) == 1


def _rounded_tensors(tensor: TensorT) -> tuple[TensorT, TensorT]:
    """The int8 tensor and the float tensor behind it, for a tensor with a range."""
    from ai_edge_litert import schema_py_generated as schema

    low, high = min(float(tensor.quantization.min[0]), 0.0), max(float(tensor.quantization.max[0]), 0.0)
    step = max((high - low) / 255, 1e-12)
    stored, real = copy(tensor), copy(tensor)
    stored.type, stored.name, stored.quantization = (
        schema.TensorType.INT8,
        tensor.name + b"_int8",
        schema.QuantizationParametersT(),
    )
    stored.quantization.scale = np.array([step], "float32")
    stored.quantization.zeroPoint = np.array([np.clip(round(-128 - low / step), -128, 127)], "int64")
    real.name, real.quantization = tensor.name + b"_rounded", None
    return stored, real


def _round_kernel(model: ModelT, operator: OperatorT, kernels: Collection[int]) -> None:
    name = operator_name(model, operator)
    if name not in _SHARED_STEP or int(operator.inputs[1]) not in kernels:
        return
    values = constant(model, int(operator.inputs[1]))
    if values is not None:
        step = np.maximum(np.abs(values).max(axis=_SHARED_STEP[name], keepdims=True) / 127, 1e-30)
        rounded = (np.round(values / step) * step).astype("float32")
        model.subgraphs[0].tensors[operator.inputs[1]].buffer = add_buffer(model, rounded)


Source = tuple[frozenset[int], frozenset[int]]  # activations and kernels


def by_part(content: bytes, parts: Mapping[str, Collection[str]]) -> dict[str, Source]:
    """Activations and kernels of each part of a network.

    Args:
        content: A float file.
        parts: Name of a part -> names of its layers, see `float_islands.float_parts`.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    found = {}
    for part, layers in parts.items():
        own = [each for each in graph.operators if layer_of(graph.tensors[each.outputs[0]].name, layers)]
        found[part] = _source(model, own)
    return found


def _source(model: ModelT, operators: Collection[OperatorT]) -> Source:
    """What operators write and the kernels that they read; outputs of the file stay in float."""
    ends = set(map(int, model.subgraphs[0].outputs))
    kernels = {int(each.inputs[1]) for each in operators if operator_name(model, each) in _SHARED_STEP}
    rounding = [each for each in operators if operator_name(model, each) not in _SAME_STEP]
    return frozenset(int(index) for each in rounding for index in each.outputs) - ends, frozenset(kernels)


def by_kind(fit: ActivationFit) -> dict[str, Source]:
    """Activations by what they are in the network, and all kernels."""
    graph = fit.file.subgraphs[0]
    swishes = set(fit.swishes.values())
    kinds: dict[str, set[int]] = {}
    activations, kernels = _source(fit.file, graph.operators)
    for operator in graph.operators:
        index, name = int(operator.outputs[0]), operator_name(fit.file, operator)
        if index in activations and index in fit.channels:
            kinds.setdefault(_kind(fit, index, name, index in swishes), set()).add(index)
    sources = {kind: (frozenset(found), frozenset[int]()) for kind, found in kinds.items()}
    return sources | {"kernels": (frozenset[int](), kernels)}


def _kind(fit: ActivationFit, index: int, operator: str, is_swish: bool) -> str:
    if operator == "FULLY_CONNECTED":
        return "dense layers"
    if fit.pooled(index):
        return "pooled and squeeze-and-excite"
    if index in fit.swishes:
        return "before swish"
    return "swish" if is_swish else _KINDS.get(operator, "other")


def noise(graph: FloatGraph, calibrated: bytes, sources: Mapping[str, Source], images: ImageArray) -> dict[str, float]:
    """Noise of the output over its signal, in power, when only one source is quantized.

    Args:
        graph: `FloatGraph`.
        calibrated: Its float file with ranges.
        sources: Name -> activations and kernels.
        images: Array of shape `(N, height, width, channels)`, in the graph's input range.

    Returns:
        Name -> noise; `-10 * log10(noise)` is the SQNR in decibels.
    """
    answers = TFLiteModel(graph.content).predict(images)

    def of(source: Source) -> float:
        found = TFLiteModel(simulated(calibrated, *source)).predict(images)
        return float(10 ** (-graph.outputs.sqnr_db(answers, found) / 10))

    return {name: of(source) for name, source in sources.items()}
