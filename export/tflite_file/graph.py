"""A `.tflite` file as immutable data: its tensors, and its operators in execution order.

Reads the flatbuffer and runs nothing; never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from types import SimpleNamespace

from keras_effnet.errors import UserError, check_path
from keras_effnet.export.tflite_file.flatbuffer import Content
from keras_effnet.export.tflite_file.integrity import check_magic, checked, stored_size
from keras_effnet.export.tflite_file.schema import bits_of, code_name, enum_names
from keras_effnet.system.files import why_no_file

FLOATS = frozenset(("float16", "float32"))
QUANTIZED = frozenset(("int8", "uint8", "int16"))
CONVERSIONS = frozenset(("QUANTIZE", "DEQUANTIZE"))


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
        return (prod(self.shape) * bits_of(self.dtype) + 7) // 8


@dataclass(frozen=True)
class Operator:
    """An operator and the indices of its input and output tensors."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """Names by which a client calls a file: `interpreter.get_signature_runner(key)(**{inputs[0]: image})`."""

    key: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Main graph of a file. `called` holds the operators of subgraphs that `IF` and `WHILE` call; ours have none."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    called: tuple[Operator, ...] = ()
    signatures: tuple[Signature, ...] = ()
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
    def macs(self) -> float:
        """Multiply-adds of a run, estimated: for each output element, the constants that contribute to it."""
        return sum(map(self._macs_of, self.steps))

    def _macs_of(self, step: Operator) -> float:
        constants = [prod(self.tensors[i].shape) for i in step.inputs if i in self.constants]
        shapes = [self.tensors[i].shape for i in step.outputs]
        return sum(prod(shape) * max(1.0, max(constants, default=1) / max(1, *shape[-1:])) for shape in shapes)

    @property
    def integer_dtypes(self) -> frozenset[str]:
        """Integer dtypes of quantized activations; empty if only weights are quantized."""
        computing = (one for one in self.steps if one.name not in CONVERSIONS)
        made = {i for one in computing for i in self.activations(one.outputs, QUANTIZED)}
        return frozenset(self.tensors[i].dtype for i in made if self.tensors[i].scale is not None)

    @property
    def hybrid(self) -> tuple[str, ...]:
        """Names of the operators with float activations and integer weights (dynamic-range quantization)."""

        def mixes(one: Operator) -> bool:
            weights = [self.tensors[i] for i in one.inputs if i in self.constants]
            return bool(self.activations(one.inputs, FLOATS)) and any(tensor.dtype in QUANTIZED for tensor in weights)

        return tuple(dict.fromkeys(one.name for one in self.steps if mixes(one)))

    @property
    def precision(self) -> str:
        """`"int8"` or `"int16x8"` by the activations, else by the weights and how they are used.

        `"float32"`, `"float16"`, `"weight_only"` (integers unpacked to float) or `"dynamic"` (integers multiplied).
        """
        if self.integer_dtypes:
            return "int16x8" if "int16" in self.integer_dtypes else "int8"
        weights = {tensor.dtype for tensor in self.tensors if tensor.stored and len(tensor.shape) > 1}
        if weights & {"int8", "uint8", "int4"}:
            return "dynamic" if self.hybrid else "weight_only"
        return "float16" if "float16" in weights else "float32"


def name_of(source: str | Path | bytes) -> str:
    """Name of a file in messages; bytes have none.

    Raises:
        UserError: It is neither a path nor bytes.
    """
    if not isinstance(source, bytes):
        check_path("The .tflite file", source)
    return "The model" if isinstance(source, bytes) else str(source)


def content_of(source: str | Path | bytes) -> bytes:
    """Read the bytes of a `.tflite` file.

    Raises:
        UserError: The file does not exist, cannot be read, or is not a `.tflite` file.
    """
    name = name_of(source)
    if isinstance(source, bytes):
        content = source
    elif not Path(source).is_file():
        raise UserError(f"{source} {why_no_file(source)}.")
    else:
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise UserError(f"{source} cannot be read: {error.strerror}.") from None
    check_magic(content, name)
    return content


def _indices(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values if value >= 0)  # -1: an omitted tensor


def _text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""


def _tensor(tensor: SimpleNamespace, buffers: Sequence[SimpleNamespace]) -> Tensor:
    shape = _indices(tensor.shape)
    quantization = tensor.quantization
    whole = quantization is not None and len(quantization.scale) == 1
    return Tensor(
        name=_text(tensor.name),
        dtype=enum_names("TensorType")[tensor.type].lower(),
        shape=shape,
        signature=tuple(int(side) for side in tensor.shape_signature) or shape,
        scale=float(quantization.scale[0]) if whole else None,
        zero_point=int(next(iter(quantization.zero_point), 0)) if whole else None,
        stored=stored_size(buffers[tensor.buffer]) > 0,
    )


def _operator(operator: SimpleNamespace, codes: Sequence[SimpleNamespace]) -> Operator:
    code = codes[operator.opcode_index]
    name = code_name(code.custom_code, code.builtin_code, code.deprecated_builtin_code)
    return Operator(name, _indices(operator.inputs), _indices(operator.outputs))


def _signature(signature: SimpleNamespace) -> Signature:
    inputs, outputs = (tuple(_text(port.name) for port in ports) for ports in (signature.inputs, signature.outputs))
    return Signature(_text(signature.signature_key), inputs, outputs)


def read_graph(content: Content, name: str = "The file") -> Graph:
    """Read the graph of a file.

    Args:
        content: The file's bytes, or a memory map.
        name: String, the file's name in messages.

    Raises:
        UserError: The bytes are not a `.tflite` file, or the file is damaged.
    """
    model = checked(content, name)
    main, *others = model.subgraphs
    return Graph(
        tensors=tuple(_tensor(tensor, model.buffers) for tensor in main.tensors),
        operators=tuple(_operator(operator, model.operator_codes) for operator in main.operators),
        inputs=_indices(main.inputs),
        outputs=_indices(main.outputs),
        called=tuple(_operator(operator, model.operator_codes) for graph in others for operator in graph.operators),
        signatures=tuple(_signature(signature) for signature in model.signature_defs),
        metadata={_text(entry.name): bytes(model.buffers[entry.buffer].data) for entry in model.metadata},
    )
