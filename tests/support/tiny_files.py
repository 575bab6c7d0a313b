"""`.tflite` files of a few operators, put together by hand from the flatbuffer schema."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def tiny_file(
    tensors: Mapping[str, tuple[str, Sequence[int]]],
    steps: Sequence[tuple[str, str, str]],
    inputs: str,
    outputs: str,
    *,
    stored: str = "",
    metadata: bytes | None = None,
) -> bytes:
    """A file's bytes.

    Args:
        tensors: Name -> dtype and shape; -1 in the shape is a size that is not fixed. Integers of 8 and 16 bits get a
            scale of 0.5 and a zero point of 3.
        steps: Triples of operator, inputs and outputs; names of tensors with spaces between.
        inputs, outputs, stored: Names of tensors with spaces between; stored ones are zeros in the file.
        metadata: Bytes of TFLITE_METADATA.
    """
    index = {name: number for number, name in enumerate(tensors)}
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph.tensors = []
    for name, (dtype, shape) in tensors.items():
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.shape = [max(side, 1) for side in shape]
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        if dtype in ("int8", "uint8", "int16"):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [0.5], [3]
        tensor.buffer = 0
        if name in stored.split():
            tensor.buffer = len(model.buffers)
            model.buffers.append(_buffer(bytes(math.prod(shape) * np.dtype(dtype).itemsize)))
        graph.tensors.append(tensor)
    model.operatorCodes, graph.operators = [], []
    for number, (kind, reads, writes) in enumerate(steps):
        code = schema.OperatorCodeT()
        if hasattr(schema.BuiltinOperator, kind):
            code.builtinCode = getattr(schema.BuiltinOperator, kind)
        else:
            code.builtinCode, code.customCode = schema.BuiltinOperator.CUSTOM, kind.encode()
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        model.operatorCodes.append(code)
        step = schema.OperatorT()
        step.opcodeIndex = number
        step.inputs = [index[name] for name in reads.split()]
        step.outputs = [index[name] for name in writes.split()]
        graph.operators.append(step)
    graph.inputs = [index[name] for name in inputs.split()]
    graph.outputs = [index[name] for name in outputs.split()]
    model.subgraphs = [graph]
    if metadata is not None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = b"TFLITE_METADATA", len(model.buffers)
        model.buffers.append(_buffer(metadata))
        model.metadata = [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _buffer(content: bytes):
    buffer = schema.BufferT()
    buffer.data = list(content)
    return buffer


def normalisation_metadata(kind: int = 1) -> bytes:
    """Metadata of an image input with one process unit: NormalizationOptions are kind 1 in metadata_schema.fbs."""
    builder = flatbuffers.Builder(256)

    def table(slots: int, fill) -> int:
        builder.StartObject(slots)
        fill()
        return builder.EndObject()

    def vector(item: int) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(item)
        return builder.EndVector()

    options = table(2, lambda: None)

    def unit_fields():
        builder.PrependUint8Slot(0, kind, 0)
        builder.PrependUOffsetTRelativeSlot(1, options, 0)

    units = vector(table(2, unit_fields))
    tensors = vector(table(7, lambda: builder.PrependUOffsetTRelativeSlot(4, units, 0)))  # process_units
    graphs = vector(table(10, lambda: builder.PrependUOffsetTRelativeSlot(2, tensors, 0)))  # input_tensor_metadata
    builder.Finish(table(8, lambda: builder.PrependUOffsetTRelativeSlot(3, graphs, 0)), b"M001")  # subgraph_metadata
    return bytes(builder.Output())
