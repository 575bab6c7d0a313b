"""The flatbuffer of a `.tflite` file as objects to read and edit: operator names, constant values, buffers.

LiteRT's generated schema and numpy; never TensorFlow.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the schema is a large module, imported only when a file is parsed
    from ai_edge_litert.schema_py_generated import BufferT, ModelT, OperatorT

MAGIC = b"TFL3"


def parse(content: bytes) -> ModelT:
    """Parse the bytes of a file into schema objects."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(content, 0)


def pack(model: ModelT) -> bytes:
    """Serialize an edited file to bytes.

    Two copies of the file exist at the same time, the builder's and the result. The builder starts large enough: it
    grows by doubling, with both buffers in memory.
    """
    import flatbuffers

    constants = sum(len(each.data) for each in model.buffers if each.data is not None)
    builder = flatbuffers.Builder(constants + constants // 8 + (1 << 20))
    builder.Finish(model.Pack(builder), MAGIC)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


@cache
def enum_names(enum: str) -> dict[int, str]:
    """Value -> name of a schema enumeration such as `"TensorType"`."""
    from ai_edge_litert import schema_py_generated as schema

    return {code: name for name, code in vars(getattr(schema, enum)).items() if isinstance(code, int)}


def code_name(custom: bytes | None, builtin: int, deprecated: int) -> str:
    """Name of an operator code, such as `"CONV_2D"`; custom operators have the name that the file gives them."""
    if custom:
        return custom.decode(errors="replace")
    # Old files set only the deprecated field, which ends at 127.
    return enum_names("BuiltinOperator")[max(builtin, deprecated)]


def operator_name(model: ModelT, operator: OperatorT) -> str:
    """Name of an operator."""
    code = model.operatorCodes[operator.opcodeIndex]
    return code_name(code.customCode, code.builtinCode, code.deprecatedBuiltinCode)


def bits_of(dtype: str) -> int:
    """Bits of an element, parsed from the dtype's name; 0 for strings and handles, whose size is not fixed."""
    number = re.search(r"\d+", dtype)
    return int(number[0]) if number else 8 * (dtype == "bool")


def tensor_dtype(model: ModelT, index: int) -> str:
    """Dtype of a tensor of the main graph, spelled as in numpy: `"float32"`, `"int8"`."""
    return enum_names("TensorType")[model.subgraphs[0].tensors[index].type].lower()


def stored_bytes(model: ModelT, index: int) -> np.ndarray | None:
    """Raw bytes of a constant tensor of the main graph, uint8; None for an activation or an omitted input (-1)."""
    if index < 0:
        return None
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return None if data is None or not len(data) else np.asarray(data, "uint8")


def constant(model: ModelT, index: int) -> np.ndarray | None:
    """Values of a constant tensor of the main graph in its dtype and shape; None for an activation or index -1."""
    data = stored_bytes(model, index)
    if data is None:
        return None
    return data.view(tensor_dtype(model, index)).reshape(model.subgraphs[0].tensors[index].shape)


def buffer(values: np.ndarray) -> BufferT:
    """A buffer that holds an array."""
    from ai_edge_litert import schema_py_generated as schema

    made = schema.BufferT()
    made.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), "uint8")
    return made


def add_buffer(model: ModelT, values: np.ndarray) -> int:
    """Append a buffer with an array to a file and return its index. Several tensors may share their old buffer."""
    model.buffers.append(buffer(values))
    return len(model.buffers) - 1


def add_operator_code(model: ModelT, builtin: int, version: int) -> int:
    """Append a builtin operator to those that a file may use and return its index.

    Args:
        model: The file.
        builtin: Int, a value of the schema's `BuiltinOperator`.
        version: Int, version of the operator.
    """
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
