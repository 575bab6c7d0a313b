"""Interpreter for the pickles of torch checkpoints, which calls nothing. numpy.

A pickle is a program that can call any Python function. This interpreter knows only the opcodes and names that a state
dict needs; it never imports or calls anything.
"""

from __future__ import annotations

import math
import pickletools
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.weights.stored_tensor import StoredTensor, printable

_STORAGE_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
    "BFloat16Storage": "bfloat16",
}
_NESTED = ("state_dict", "model")  # keys under which training scripts store the weights
_CURE = "save the model's state_dict() alone"


def as_numbers(buffer: Any, dtype: str) -> np.ndarray:
    """Interpret bytes as numbers; bfloat16, which numpy lacks, is the upper half of a float32."""
    if dtype == "bfloat16":
        return (np.frombuffer(buffer, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(buffer, dtype)


def item_size(dtype: str) -> int:
    """Bytes of an element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


class Storage(NamedTuple):
    """Values that tensors share: key, numpy dtype or `bfloat16`, and number of elements."""

    key: str
    dtype: str
    size: int


class TensorView(NamedTuple):
    """View of a storage that is read later; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def within(self, buffer: Any) -> StoredTensor:
        """The tensor with its values in the bytes of its storage.

        Raises:
            UserError: It reaches outside the storage, or the storage has another size.
        """
        if len(buffer) != self.storage.size * item_size(self.storage.dtype):
            raise UserError(f"storage {printable(self.storage.key)} does not have the claimed size")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        inside = 0 <= self.offset <= last < self.storage.size and min(self.strides, default=0) >= 0
        # A stride of 0 repeats elements, so a few bytes could exhaust the memory.
        if 0 not in self.shape and not (inside and math.prod(self.shape) <= self.storage.size):
            raise UserError("a tensor reaches outside its storage")
        return StoredTensor(self.shape, lambda: self._read(buffer))

    def _read(self, buffer: Any) -> np.ndarray:
        flat = as_numbers(buffer, self.storage.dtype)
        steps = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


class _Name(NamedTuple):
    """An object that a pickle would import."""

    module: str
    name: str


_ORDERED_DICT = _Name("collections", "OrderedDict")
_REBUILD_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
_KNOWN = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *(_Name("torch", kind) for kind in _STORAGE_DTYPES)}

_PUSH_ARGUMENT = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _known(module: object, name: object) -> _Name:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise UserError("it imports an object without a name; refused")
    if (found := _Name(module, name)) not in _KNOWN:
        raise UserError(f"it asks for {printable(f'{module}.{name}')}, which no state dict needs; refused, {_CURE}")
    return found


def _call(function: object, arguments: object) -> Any:
    """Result of calling one of the few functions that state dicts use."""
    match arguments:
        case () if function == _ORDERED_DICT:
            return {}
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if function == _REBUILD_TENSOR:
            if len(shape) == len(strides) and all(isinstance(number, int) for number in shape + strides):
                return TensorView(storage, offset, shape, strides)
        case (TensorView() as tensor, *_) if function == _REBUILD_PARAMETER:
            return tensor
    raise UserError("it rebuilds a tensor from something else; refused")


def _storage(saved_id: object) -> Storage:
    match saved_id:
        # A sixth element would make it a view of another storage, which torch has not written since 0.4.
        case ("storage", _Name("torch", kind), str(key), _, int(size), *view) if view in ([], [None]):
            return Storage(key, _STORAGE_DTYPES[kind], size)
    raise UserError(f"it holds more than tensors; refused, {_CURE}")


def _dict(found: object) -> dict[Any, Any]:
    if not isinstance(found, dict):
        raise UserError("it holds another object where a dict should be")
    return found


def _fill(target: object, pairs: list[Any]) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, (str, int)):  # hashing nested tuples can take forever
            raise UserError("it holds a dict whose keys are not names; refused")
        _dict(target)[key] = value


def unpickle(stream: Any, storages: dict[str, Storage] | None = None) -> Any:
    """Read one pickle of strings, numbers, lists, tuples, dicts and tensors.

    All storages that it refers to are added to `storages`.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    storages = {} if storages is None else storages

    def pop_from(start: int) -> list[Any]:
        popped = stack[start:]
        del stack[start:]
        return popped

    for opcode, argument, _position in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in _PUSH_ARGUMENT:
                stack.append(argument)
            case name if name in _PUSH_CONSTANT:
                stack.append(_PUSH_CONSTANT[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_from(marks.pop())))
            case name if name in _TUPLES:
                stack.append(tuple(pop_from(-_TUPLES[name])))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_known(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_known(*pop_from(-2)))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
                storages[stack[-1].key] = stack[-1]
            case "REDUCE":
                stack.append(_call(*pop_from(-2)))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = pop_from(marks.pop())
                stack[-1].extend(items)
            case "SETITEM":
                pair = pop_from(-2)
                _fill(stack[-1], pair)
            case "SETITEMS":
                pairs = pop_from(marks.pop())
                _fill(stack[-1], pairs)
            case "BUILD":  # attributes of a dict, such as _metadata, are not needed
                stack.pop()
                _dict(stack[-1])
            case "STOP":
                return stack.pop()
            case name:
                raise UserError(f"it uses {name} of pickle, which no state dict needs; refused, {_CURE}")


def tensors_of(state: object) -> dict[str, TensorView]:
    """The tensors of a state dict, which a training script may have wrapped in another dict."""
    found = _dict(state)
    for key in _NESTED:
        if isinstance(found.get(key), dict):
            found = found[key]
    return {str(name): value for name, value in found.items() if isinstance(value, TensorView)}
