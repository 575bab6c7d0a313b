"""Weight-only compression of a float file: float16 weights, and int8 weights for dynamic-range quantization.

TensorFlow's converter does the same but needs another conversion each time: half a minute for B7, while rewriting the
file takes seconds. Tests compare both results. LiteRT's schema and numpy; never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from keras_effnet.export.tflite_file.schema import add_buffer, constant, operator_name, pack, parse, tensor_dtype

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT

_HALF = np.finfo("float16")
_MIN_ELEMENTS = 1024  # smaller kernels stay in float, as in TensorFlow's converter
_DEQUANTIZE_VERSION = 3  # the first version that supports float16

# Operator -> axis of the output channels in its kernel, operator version that supports int8 weights with float inputs.
_HYBRID = {"CONV_2D": (0, 5), "DEPTHWISE_CONV_2D": (3, 6), "FULLY_CONNECTED": (0, 12)}


def _weighted(model: ModelT) -> Iterator[tuple[str, OperatorT]]:
    """Operators with a kernel, by name."""
    for operator in model.subgraphs[0].operators:
        if (name := operator_name(model, operator)) in _HYBRID:
            yield name, operator


def _float32(model: ModelT, index: int) -> np.ndarray | None:
    """Values of a constant float32 tensor; None for any other tensor."""
    return constant(model, index) if tensor_dtype(model, index) == "float32" else None


def _drop_unused(model: ModelT) -> None:
    """Empty the buffers that no tensor refers to any more; buffer indices stay valid."""
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors} | {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def float16_weights(content: bytes) -> bytes:
    """Store kernels and biases in float16, each with a DEQUANTIZE that runtimes execute once or skip.

    Args:
        content: A float32 file.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = _DEQUANTIZE_VERSION
    model.operatorCodes.append(code)
    widenings, done = [], set()
    for _, operator in _weighted(model):
        for index in map(int, operator.inputs[1:]):
            values = _float32(model, index)
            if values is None or index in done:
                continue
            done.add(index)
            half, wide = schema.TensorT(), graph.tensors[index]
            half.name, half.shape, half.type = wide.name + b"_float16", wide.shape, schema.TensorType.FLOAT16
            half.buffer = add_buffer(model, np.clip(values, _HALF.min, _HALF.max).astype("float16"))
            wide.buffer = 0  # now computed by the DEQUANTIZE
            graph.tensors.append(half)
            widening = schema.OperatorT()
            widening.opcodeIndex = len(model.operatorCodes) - 1
            widening.inputs, widening.outputs = [len(graph.tensors) - 1], [index]
            widenings.append(widening)
    graph.operators = widenings + graph.operators
    _drop_unused(model)
    return pack(model)


def int8_weights(content: bytes) -> bytes:
    """Store kernels in int8 with a scale per output channel; LiteRT quantizes activations at run time.

    Args:
        content: A float32 file.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    for name, operator in _weighted(model):
        index = int(operator.inputs[1])
        values = _float32(model, index)
        if values is None or values.size < _MIN_ELEMENTS:
            continue
        axis, version = _HYBRID[name]
        others = tuple(other for other in range(values.ndim) if other != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-30) / 127
        tensor = model.subgraphs[0].tensors[index]
        tensor.buffer = add_buffer(model, np.clip(np.round(values / scale), -127, 127).astype("int8"))
        tensor.type = schema.TensorType.INT8
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = scale.astype("float32").ravel()
        tensor.quantization.zeroPoint = np.zeros(scale.size, "int64")
        tensor.quantization.quantizedDimension = axis
        code = model.operatorCodes[operator.opcodeIndex]
        code.version = max(code.version, version)
        if name == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True
    _drop_unused(model)
    return pack(model)
