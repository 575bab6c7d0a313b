"""A `.tflite` file as immutable data: its tensors, and its operators in execution order.

Reads the flatbuffer and runs nothing; never TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from keras_effnet.errors import UserError
from keras_effnet.export.tflite_file.schema import MAGIC, enum_names, operator_name, parse

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import BufferT, TensorT

FLOATS = frozenset(("float16", "float32"))
QUANTIZED = frozenset(("int8", "uint8", "int16"))
CONVERSIONS = frozenset(("QUANTIZE", "DEQUANTIZE"))

_BITS = {"int2": 2, "int4": 4, "uint4": 4, "bool": 8, "bfloat16": 16, "complex64": 64, "complex128": 128}


def _bits(dtype: str) -> int:
    """Bits of an element, parsed from the dtype's name; 0 for strings and handles, whose size is not fixed."""
    digits = "".join(filter(str.isdigit, dtype))
    return _BITS.get(dtype, int(digits) if digits else 0)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Args:
        name: String.
        dtype: String, spelled as in numpy: `"float32"`, `"int8"`.
        shape: Tuple of ints, as the interpreter allocates it.
        signature: Tuple of ints, the shape with -1 for dimensions that are not fixed.
        scale, zero_point: Float and int of a per-tensor quantized tensor, else None.
        stored: Bool, whether the file holds its values (a constant).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None
    stored: bool = False

    @property
    def bytes(self) -> int:
        """Size of the tensor in bytes."""
        return (prod(self.shape) * _bits(self.dtype) + 7) // 8


@dataclass(frozen=True)
class Operator:
    """An operator and the indices of its input and output tensors."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """Main graph of a file. `called` holds the operators of subgraphs that `IF` and `WHILE` call; ours have none."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    called: tuple[Operator, ...] = ()
    metadata: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def constants(self) -> frozenset[int]:
        """Tensors that do not depend on the input: stored tensors, and those computed only from constants.

        A float16 file has such computed constants: each weight has a DEQUANTIZE that a runtime executes at most once.
        """
        found = {index for index, tensor in enumerate(self.tensors) if tensor.stored}
        for operator in self.operators:
            if operator.inputs and found.issuperset(operator.inputs):
                found.update(operator.outputs)
        return frozenset(found)

    @cached_property
    def steps(self) -> tuple[Operator, ...]:
        """Operators that run for each image; those with constant outputs are left out."""
        return tuple(one for one in self.operators if not self.constants.issuperset(one.outputs))

    def activations(self, indices: tuple[int, ...], dtypes: frozenset[str]) -> tuple[int, ...]:
        """Return the given tensors that depend on the input and have one of the dtypes."""
        return tuple(i for i in indices if i not in self.constants and self.tensors[i].dtype in dtypes)

    @property
    def integer_dtypes(self) -> frozenset[str]:
        """Integer dtypes of quantized activations; empty if only weights are quantized."""
        computing = (one for one in self.steps if one.name not in CONVERSIONS)
        made = {i for one in computing for i in self.activations(one.outputs, QUANTIZED)}
        return frozenset(self.tensors[i].dtype for i in made if self.tensors[i].scale is not None)

    @property
    def precision(self) -> str:
        """`"int8"` or `"int16x8"` by the activations; else `"float32"`, `"float16"` or `"dynamic"` by the weights."""
        if self.integer_dtypes:
            return "int16x8" if "int16" in self.integer_dtypes else "int8"
        weights = {tensor.dtype for tensor in self.tensors if tensor.stored and len(tensor.shape) > 1}
        if weights & {"int8", "uint8", "int4"}:
            return "dynamic"
        return "float16" if "float16" in weights else "float32"


def content_of(source: str | Path | bytes) -> bytes:
    """Read the bytes of a `.tflite` file.

    Raises:
        UserError: The file does not exist or is not a `.tflite` file.
    """
    if isinstance(source, bytes):
        name, content = "The model", source
    elif Path(source).is_file():
        name, content = str(source), Path(source).read_bytes()
    else:
        raise UserError(f"{source} does not exist.")
    if content[4:8] != MAGIC:
        raise UserError(f"{name} is not a .tflite file.")
    return content


def _indices(values: Iterable[int] | None) -> tuple[int, ...]:
    return tuple(int(value) for value in values if value >= 0) if values is not None else ()  # -1: an omitted input


def _text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""


def _tensor(tensor: TensorT, buffers: Sequence[BufferT]) -> Tensor:
    shape = _indices(tensor.shape)
    signature = shape if tensor.shapeSignature is None else tuple(int(side) for side in tensor.shapeSignature)
    scales = [] if tensor.quantization is None or tensor.quantization.scale is None else tensor.quantization.scale
    whole = len(scales) == 1
    buffer = buffers[tensor.buffer]
    return Tensor(
        name=_text(tensor.name),
        dtype=enum_names("TensorType")[tensor.type].lower(),
        shape=shape,
        signature=signature,
        scale=float(scales[0]) if whole else None,
        zero_point=int(tensor.quantization.zeroPoint[0]) if whole else None,
        # Files above 2 GB store values after the flatbuffer, at an offset.
        stored=(buffer.data is not None and len(buffer.data) > 0) or buffer.offset > 1,
    )


def read_graph(content: bytes) -> Graph:
    """Read the graph of a file.

    Args:
        content: The file's bytes.

    Raises:
        UserError: The bytes are not a `.tflite` file, or the file is damaged.
    """
    content_of(content)
    try:
        model = parse(content)
        graphs = [
            tuple(
                Operator(operator_name(model, operator), _indices(operator.inputs), _indices(operator.outputs))
                for operator in graph.operators
            )
            for graph in model.subgraphs
        ]
        main = model.subgraphs[0]
        return Graph(
            tensors=tuple(_tensor(tensor, model.buffers) for tensor in main.tensors),
            operators=graphs[0],
            inputs=_indices(main.inputs),
            outputs=_indices(main.outputs),
            called=tuple(operator for graph in graphs[1:] for operator in graph),
            metadata={
                _text(entry.name): bytes(model.buffers[entry.buffer].data)
                for entry in model.metadata or ()
                if model.buffers[entry.buffer].data is not None
            },
        )
    except (struct.error, IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"The .tflite file is damaged: {type(error).__name__} while reading it.") from error
