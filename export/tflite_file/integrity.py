"""Checks of a `.tflite` file before anything uses it: offsets, indices, shapes, sizes of constants, order of operators.

LiteRT trusts most of them: a damaged file can abort the process. Runs nothing; pure Python and numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from types import SimpleNamespace

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.tflite_file.flatbuffer import Content, MalformedError
from keras_effnet.export.tflite_file.layout import read_tables
from keras_effnet.export.tflite_file.schema import MAGIC, bits_of, code_name, enum_names

_VERSION = 3
_MAX_ELEMENTS = 2**40  # of one tensor
_MAX_DIMENSIONS = 16  # most kernels stop at 4 to 6
_OTHER_FILES = (
    (b"PK\x03\x04", "a zip archive, like a .keras file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<", "a web page or XML"),
    (b"version https://git-lfs", "a Git LFS pointer without its file"),
)


def check_magic(content: Content, name: str) -> None:
    """Refuse what is no `.tflite` file, and say what it is instead if that is known.

    Raises:
        UserError: The mark of the format is missing.
    """
    if content[4:8] == MAGIC:
        return
    begin = bytes(content[:64]).lstrip(b"\xef\xbb\xbf \t\r\n")
    known = [kind for start, kind in _OTHER_FILES if begin.startswith(start)]
    what = "it is empty" if not len(content) else f"it is {known[0]}" if known else "it does not begin like one"
    raise UserError(f"{name} is not a .tflite file: {what}.")


def checked(content: Content, name: str) -> SimpleNamespace:
    """Read the tables of a file as namespaces, named as in `layout`, and check that they are consistent.

    Args:
        content: Bytes or a memory map of the file.
        name: String, the file's name in messages.

    Raises:
        UserError: The content is not a `.tflite` file, or is damaged; the message names the first fault.
    """
    check_magic(content, name)
    try:
        model = read_tables(content)
        fault = next(_faults(model, len(content)), None)
    except MalformedError as error:
        fault = str(error)
    if fault:
        raise UserError(f"{name} is damaged: {fault}. Copy or convert it again.")
    return model


def _faults(model: SimpleNamespace, size: int) -> Iterator[str]:
    if model.version != _VERSION:
        yield f"its schema has version {model.version}, not {_VERSION}"
    if not model.subgraphs:
        yield "it contains no graph"
    yield from _code_faults(model.operator_codes)
    for number, buffer in enumerate(model.buffers):
        if buffer.offset > 1 and buffer.offset + buffer.size > size:  # 1 is a placeholder
            yield f"buffer {number} ends at byte {buffer.offset + buffer.size:,} of {size:,}"
    for number, entry in enumerate(model.metadata):
        if entry.buffer >= len(model.buffers):
            yield f"metadata {number} refers to buffer {entry.buffer} of {len(model.buffers)}"
    for number, graph in enumerate(model.subgraphs):
        prefix = f"in subgraph {number}, " if number else ""
        yield from (prefix + fault for fault in _graph_faults(graph, model, size))
    for signature in model.signature_defs:
        yield from _signature_faults(signature, model.subgraphs)


def _code_faults(codes: Sequence[SimpleNamespace]) -> Iterator[str]:
    for number, code in enumerate(codes):
        value = max(code.builtin_code, code.deprecated_builtin_code)
        name = enum_names("BuiltinOperator").get(value)
        if name is None:
            yield f"operator code {number} is {value}, which this runtime does not know"
        elif name == "CUSTOM" and not code.custom_code:
            yield f"operator code {number} is a custom operator without a name"


def _signature_faults(signature: SimpleNamespace, graphs: Sequence[SimpleNamespace]) -> Iterator[str]:
    name = repr((signature.signature_key or b"").decode(errors="replace"))
    if signature.subgraph_index >= len(graphs):
        yield f"signature {name} refers to subgraph {signature.subgraph_index} of {len(graphs)}"
        return
    count = len(graphs[signature.subgraph_index].tensors)
    for entry in (*signature.inputs, *signature.outputs):
        if entry.tensor_index >= count:
            yield f"signature {name} refers to tensor {entry.tensor_index} of {count}"


def _graph_faults(graph: SimpleNamespace, model: SimpleNamespace, size: int) -> Iterator[str]:
    count = len(graph.tensors)
    for number, tensor in enumerate(graph.tensors):
        yield from (f"tensor {number} {fault}" for fault in _tensor_faults(tensor, model.buffers))
    for side, indices in (("input", graph.inputs), ("output", graph.outputs)):
        yield from (f"an {side} is tensor {index} of {count}" for index in indices if not 0 <= index < count)
    for number, operator in enumerate(graph.operators):
        yield from (f"operator {number} {fault}" for fault in _operator_faults(operator, model, count, size))
    yield from _order_faults(graph, model)


def _tensor_faults(tensor: SimpleNamespace, buffers: Sequence[SimpleNamespace]) -> Iterator[str]:
    if len(tensor.shape) > _MAX_DIMENSIONS:
        yield f"has {len(tensor.shape)} dimensions"
        return
    shape = [int(side) for side in tensor.shape]
    dtype = enum_names("TensorType").get(tensor.type)
    if dtype is None:
        yield f"has type {tensor.type}, which this runtime does not know"
        return
    if tensor.buffer >= len(buffers):
        yield f"refers to buffer {tensor.buffer} of {len(buffers)}"
        return
    if min(shape, default=0) < 0 or min(tensor.shape_signature, default=0) < -1:
        yield f"has the shape {shape}, signature {[int(side) for side in tensor.shape_signature[:_MAX_DIMENSIONS]]}"
        return
    if len(tensor.shape_signature) not in (0, len(shape)):
        yield f"has {len(shape)} dimensions, but {len(tensor.shape_signature)} in its signature"
    if prod(shape) > _MAX_ELEMENTS:
        yield f"has the shape {shape}, more than {_MAX_ELEMENTS:,} elements"
    stored = stored_size(buffers[tensor.buffer])
    expected = (prod(shape) * bits_of(dtype.lower()) + 7) // 8
    if stored and expected and not tensor.sparsity and stored != expected:
        yield f"is stored in {stored:,} bytes, but {dtype.lower()} {shape} takes {expected:,}"
    if tensor.quantization:
        yield from _quantization_faults(tensor.quantization, shape)


def _quantization_faults(quantization: SimpleNamespace, shape: list[int]) -> Iterator[str]:
    scales, points, axis = quantization.scale, quantization.zero_point, quantization.quantized_dimension
    if len(points) not in (0, len(scales)):
        yield f"has {len(scales)} scales, but {len(points)} zero points"
    if len(scales) and not (np.isfinite(scales).all() and np.min(scales) >= 0):
        yield f"has a scale of {float(scales[~np.isfinite(scales) | (scales < 0)][0])}"
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        yield f"has {len(scales)} scales along dimension {axis} of {shape}"


def _operator_faults(operator: SimpleNamespace, model: SimpleNamespace, tensors: int, size: int) -> Iterator[str]:
    if operator.opcode_index >= len(model.operator_codes):
        yield f"refers to operator code {operator.opcode_index} of {len(model.operator_codes)}"
        return
    for index in (*operator.inputs, *operator.outputs, *operator.intermediates):
        if not -1 <= index < tensors:  # -1: an omitted tensor
            yield f"({_name(operator, model)}) refers to tensor {index} of {tensors}"
    if operator.large_custom_options_offset > 1:
        end = operator.large_custom_options_offset + operator.large_custom_options_size
        if end > size:
            yield f"({_name(operator, model)}) has options that end at byte {end:,} of {size:,}"


def _order_faults(graph: SimpleNamespace, model: SimpleNamespace) -> Iterator[str]:
    """Operators that read what is not computed yet, or overwrite a constant."""
    tensors = graph.tensors
    constants = {index for index, tensor in enumerate(tensors) if stored_size(model.buffers[tensor.buffer])}
    known = constants | {int(index) for index in graph.inputs}
    known |= {index for index, tensor in enumerate(tensors) if tensor.is_variable or 0 in tensor.shape}
    for number, operator in enumerate(graph.operators):
        outputs = {int(index) for index in operator.outputs}
        for index in {int(index) for index in operator.inputs if index >= 0} - known:
            yield f"operator {number} ({_name(operator, model)}) reads tensor {index} before it is computed"
        for index in outputs & constants:
            yield f"operator {number} ({_name(operator, model)}) overwrites the constant tensor {index}"
        known |= outputs
    for index in {int(index) for index in graph.outputs} - known:
        yield f"output {index} is never computed"


def _name(operator: SimpleNamespace, model: SimpleNamespace) -> str:
    code = model.operator_codes[operator.opcode_index]
    return code_name(code.custom_code, code.builtin_code, code.deprecated_builtin_code)


def stored_size(buffer: SimpleNamespace) -> int:
    """Bytes of a constant; 0 for an activation. Files above 2 GB store constants after the flatbuffer, at an offset."""
    return len(buffer.data) or (int(buffer.size) if buffer.offset > 1 else 0)
