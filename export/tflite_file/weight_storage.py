"""Weights of a float file in fewer bits: float16, int8, and int8 for dynamic-range quantization.

TensorFlow's converter does the same but needs another conversion each time: half a minute for B7, while rewriting the
file takes seconds. Tests compare both results. LiteRT's schema and numpy; never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_effnet.export.tflite_file.schema import (
    add_buffer,
    add_operator_code,
    constant,
    operator_name,
    pack,
    parse,
    tensor_dtype,
)

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, TensorT

_HALF_ERROR = 1e-3  # of the root mean square: rounding to 11 bits makes 3e-4, more is beyond float16's range
_MIN_ELEMENTS = 1024  # smaller kernels stay in float, as in TensorFlow's converter
_HALF_SHARE = 0.04  # of all weights: the smallest kernels, in float16 where others are int8
# Versions of DEQUANTIZE that support float16, and int8 with a scale per channel.
_DEQUANTIZE_HALF, _DEQUANTIZE_CHANNELS = 3, 5

# Operator -> axis of the output channels in its kernel, operator version that supports int8 weights with float inputs.
_HYBRID = {"CONV_2D": (0, 5), "DEPTHWISE_CONV_2D": (3, 6), "FULLY_CONNECTED": (0, 12)}


def _weighted(model: ModelT) -> Iterator[tuple[str, OperatorT]]:
    """Operators with a kernel, by name."""
    for operator in model.subgraphs[0].operators:
        if (name := operator_name(model, operator)) in _HYBRID:
            yield name, operator


class _Weight(NamedTuple):
    """A constant of an operator: the operator's name, and whether it is the kernel or the bias."""

    operator: str
    is_kernel: bool
    values: np.ndarray


def _float32(model: ModelT, index: int) -> np.ndarray | None:
    """Values of a constant float32 tensor; None for any other tensor."""
    return constant(model, index) if tensor_dtype(model, index) == "float32" else None


def _drop_unused(model: ModelT) -> None:
    """Empty the buffers that no tensor refers to any more; buffer indices stay valid."""
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors} | {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _unpacked_at_load(content: bytes, version: int, packed: Callable[[ModelT, _Weight], TensorT | None]) -> bytes:
    """Store weights in another type, each with a DEQUANTIZE to float32 that runtimes execute once or skip.

    Args:
        content: A float32 file.
        version: Int, version of the DEQUANTIZE.
        packed: Function that adds a weight's buffer and returns its tensor, without name and shape; None to leave it.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    graph = model.subgraphs[0]
    code = add_operator_code(model, schema.BuiltinOperator.DEQUANTIZE, version)
    suffixes = {schema.TensorType.FLOAT16: b"_float16", schema.TensorType.INT8: b"_int8"}
    unpacking, done = [], set()
    for name, operator in _weighted(model):
        for place, index in enumerate(map(int, operator.inputs[1:])):
            values = _float32(model, index)
            if values is None or index in done:
                continue
            done.add(index)
            if (stored := packed(model, _Weight(name, place == 0, values))) is None:
                continue
            wide = graph.tensors[index]
            stored.name, stored.shape = wide.name + suffixes[stored.type], wide.shape
            wide.buffer = 0  # now computed by the DEQUANTIZE
            graph.tensors.append(stored)
            step = schema.OperatorT()
            step.opcodeIndex = code
            step.inputs, step.outputs = [len(graph.tensors) - 1], [index]
            unpacking.append(step)
    graph.operators = unpacking + graph.operators
    _drop_unused(model)
    return pack(model)


def _half(model: ModelT, weight: _Weight) -> TensorT | None:
    """The float16 tensor of a weight; None if its values are beyond 6e4, or together so small that they round to 0."""
    from ai_edge_litert import schema_py_generated as schema

    values = weight.values.astype("float64")
    with np.errstate(over="ignore"):
        half = weight.values.astype("float16")
    if np.square(half - values).mean() > _HALF_ERROR**2 * np.square(values).mean():
        return None
    tensor = schema.TensorT()
    tensor.type = schema.TensorType.FLOAT16
    tensor.buffer = add_buffer(model, half)
    return tensor


def float16_weights(content: bytes) -> bytes:
    """Store kernels and biases in float16, but for those that its range does not hold.

    Args:
        content: A float32 file.
    """
    return _unpacked_at_load(content, _DEQUANTIZE_HALF, _half)


def int8_weights(content: bytes) -> bytes:
    """Store float32 kernels in int8 with a scale per output channel; arithmetic and activations stay as they are.

    The smallest kernels, which hold 4% of all weights together, are stored in float16: those of the first blocks and
    the depthwise ones, whose rounding causes most of the error; those beyond float16's range in int8 too. Kernels of
    fewer than 1024 values and biases stay in float32.

    Args:
        content: A file with float32 kernels.
    """
    from ai_edge_litert import schema_py_generated as schema

    largest_half = _size_up_to(parse(content), _HALF_SHARE)

    def quantized(model: ModelT, weight: _Weight) -> TensorT | None:
        if not weight.is_kernel or weight.values.size < _MIN_ELEMENTS:
            return None
        if weight.values.size <= largest_half and (half := _half(model, weight)):
            return half
        tensor = schema.TensorT()
        _quantize(model, tensor, weight.operator, weight.values)
        return tensor

    return _unpacked_at_load(content, _DEQUANTIZE_CHANNELS, quantized)


def _size_up_to(model: ModelT, share: float) -> int:
    """The largest number of values of a kernel so that all kernels up to it hold at most a share of all values."""
    stored = {int(operator.inputs[1]) for _, operator in _weighted(model)}
    sizes = np.array([values.size for index in stored if (values := constant(model, index)) is not None])
    found = [size for size in np.unique(sizes) if sizes[sizes <= size].sum() <= share * sizes.sum()]
    return int(max(found, default=0))


def dynamic_range(content: bytes) -> bytes:
    """Store kernels in int8 with a scale per output channel; LiteRT quantizes activations at run time.

    Args:
        content: A float32 file.
    """
    model = parse(content)
    quantized: set[int] = set()
    for name, operator in _weighted(model):
        index = int(operator.inputs[1])
        values = _float32(model, index)
        if values is not None and values.size >= _MIN_ELEMENTS:
            _quantize(model, model.subgraphs[0].tensors[index], name, values)
            quantized.add(index)
        if index not in quantized:  # several operators may share a kernel
            continue
        code = model.operatorCodes[operator.opcodeIndex]
        code.version = max(code.version, _HYBRID[name][1])
        if name == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True
    _drop_unused(model)
    return pack(model)


def _quantize(model: ModelT, tensor: TensorT, operator: str, values: np.ndarray) -> None:
    """Make `tensor` the int8 tensor of an operator's kernel: symmetric, a scale per output channel."""
    from ai_edge_litert import schema_py_generated as schema

    axis = _HYBRID[operator][0]
    others = tuple(other for other in range(values.ndim) if other != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-30) / 127
    tensor.buffer = add_buffer(model, np.clip(np.round(values / scale), -127, 127).astype("int8"))
    tensor.type = schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = scale.astype("float32").ravel()
    tensor.quantization.zeroPoint = np.zeros(scale.size, "int64")
    tensor.quantization.quantizedDimension = axis
