"""Weights of a float file stored in fewer bits, the arithmetic left as it is: float16, and int8 for dynamic range.

TensorFlow's converter does the same, at the price of one more conversion each: half a minute for B7 where rewriting the
file takes seconds. Tests hold both results side by side.

Imports `tensors` beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_effnet.export.tflite_file.tensors import pack, parse

_HALF = np.finfo("float16")
_MIN_ELEMENTS = 1024  # kernels below are not worth quantizing, by TensorFlow's rule too
_DEQUANTIZE_VERSION = 3  # the first that takes float16

# Operator -> axis of the output channels in its kernel, version of the operator that takes int8 beside float.
_HYBRID = {"CONV_2D": (0, 5), "DEPTHWISE_CONV_2D": (3, 6), "FULLY_CONNECTED": (0, 12)}


def _weighted(model) -> Iterator[tuple[str, object]]:
    """Operators with a kernel, by name."""
    from ai_edge_litert import schema_py_generated as schema

    names = {getattr(schema.BuiltinOperator, name): name for name in _HYBRID}
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if name := names.get(max(code.builtinCode, code.deprecatedBuiltinCode)):
            yield name, operator


def _constant(model, index: int) -> np.ndarray | None:
    """The values of a constant float32 tensor, None for any other."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data if index >= 0 else None  # -1 stands for a bias that is not there
    if data is None or not len(data) or tensor.type != schema.TensorType.FLOAT32:
        return None
    return np.asarray(data, "uint8").view("float32").reshape(tensor.shape)


def _store(model, values: np.ndarray) -> int:
    """Adds a buffer of its own: several tensors may share one. Returns its index."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), "uint8")
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _drop_unused(model) -> None:
    """Empties the buffers that no tensor refers to any more; buffers keep their numbers."""
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors} | {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def float16_weights(content: bytes) -> bytes:
    """Kernels and biases in float16, each widened by a DEQUANTIZE; runtimes do that once, or compute in float16.

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
            values = _constant(model, index)
            if values is None or index in done:
                continue
            done.add(index)
            half, wide = schema.TensorT(), graph.tensors[index]
            half.name, half.shape, half.type = wide.name + b"_float16", wide.shape, schema.TensorType.FLOAT16
            half.buffer = _store(model, np.clip(values, _HALF.min, _HALF.max).astype("float16"))
            wide.buffer = 0  # computed now
            graph.tensors.append(half)
            widening = schema.OperatorT()
            widening.opcodeIndex = len(model.operatorCodes) - 1
            widening.inputs, widening.outputs = [len(graph.tensors) - 1], [index]
            widenings.append(widening)
    graph.operators = widenings + graph.operators
    _drop_unused(model)
    return pack(model)


def int8_weights(content: bytes) -> bytes:
    """Kernels in int8 with a step for each output channel; LiteRT quantizes the activations while it runs.

    Args:
        content: A float32 file.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    for name, operator in _weighted(model):
        index = int(operator.inputs[1])
        values = _constant(model, index)
        if values is None or values.size < _MIN_ELEMENTS:
            continue
        axis, version = _HYBRID[name]
        others = tuple(other for other in range(values.ndim) if other != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-30) / 127
        tensor = model.subgraphs[0].tensors[index]
        tensor.buffer = _store(model, np.clip(np.round(values / scale), -127, 127).astype("int8"))
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
