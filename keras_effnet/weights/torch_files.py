"""Reads torch checkpoints, `.pth` and `.safetensors`, with numpy alone and runs no code from them.

A pickle is a program. Here it is read opcode by opcode, by a machine that knows what a state dict needs and nothing
else: a name in the pickle stays a name, and no function of Python is ever looked up, let alone called. Both of torch's
formats are read: the zip of today and the legacy stream. Imports `stored` and `errors`.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import operator
import pickletools
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.weights.stored_tensor import StoredTensor, open_archive, printable, read_member

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
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
_SAFE_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8", "I32": "<i4", "U8": "<u1"}
_NESTED = ("state_dict", "model")  # where training scripts keep the weights among other things
_CURE = "save the model's state_dict() alone"


def _values(buffer, dtype: str) -> np.ndarray:
    """Bytes as numbers. numpy has no bfloat16: it is the upper half of a float32."""
    if dtype == "bfloat16":
        return (np.frombuffer(buffer, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(buffer, dtype)


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage that is read later; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def within(self, buffer) -> StoredTensor:
        if len(buffer) != self.storage.size * _item_size(self.storage.dtype):
            raise UserError(f"storage {printable(self.storage.key)} is not of the size that is claimed")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        inside = 0 <= self.offset <= last < self.storage.size and min(self.strides, default=0) >= 0
        # A stride of 0 repeats elements without end: a few bytes would fill the memory.
        if 0 not in self.shape and not (inside and math.prod(self.shape) <= self.storage.size):
            raise UserError("a tensor reaches outside its storage")
        return StoredTensor(self.shape, lambda: self._read(buffer))

    def _read(self, buffer) -> np.ndarray:
        flat = _values(buffer, self.storage.dtype)
        steps = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


class _Name(NamedTuple):
    """What a pickle would import."""

    module: str
    name: str


_ORDERED_DICT = _Name("collections", "OrderedDict")
_REBUILD_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
_KNOWN = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *(_Name("torch", kind) for kind in _STORAGE_DTYPES)}

_PUSH_ARGUMENT = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _known(module, name) -> _Name:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise UserError("it asks for what has no name; refused")
    if (found := _Name(module, name)) not in _KNOWN:
        raise UserError(
            f"it asks for {printable(f'{module}.{name}')}, which a state dict has no use for; refused, {_CURE}"
        )
    return found


def _call(function, arguments):
    """What the few functions of a state dict would have made."""
    match arguments:
        case () if function == _ORDERED_DICT:
            return {}
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if function == _REBUILD_TENSOR:
            if len(shape) == len(strides) and all(isinstance(number, int) for number in shape + strides):
                return _Tensor(storage, offset, shape, strides)
        case (_Tensor() as tensor, *_) if function == _REBUILD_PARAMETER:
            return tensor
    raise UserError("it makes a tensor from what is none; refused")


def _storage(saved_id) -> _Storage:
    match saved_id:
        # A sixth element would say where in another storage this one lies, which no torch since 0.4 does.
        case ("storage", _Name("torch", kind), str(key), _, int(size), *view) if view in ([], [None]):
            return _Storage(key, _STORAGE_DTYPES[kind], size)
    raise UserError(f"it holds more than tensors; refused, {_CURE}")


def _dict(found) -> dict:
    if not isinstance(found, dict):
        raise UserError("it holds something else where a dict should be")
    return found


def _fill(target, pairs: list) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, (str, int)):  # nested tuples take for ever to hash
            raise UserError("it holds a dict whose keys are no names; refused")
        _dict(target)[key] = value


def _unpickle(stream, storages: dict[str, _Storage] | None = None):
    """The object of one pickle, of which strings, numbers, lists, tuples, dicts and tensors are understood.

    All storages that it speaks of are put into `storages`.
    """
    stack, marks, memo = [], [], {}
    storages = {} if storages is None else storages

    def pop_from(start: int) -> list:
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
                stack.append(_known(*argument.split(" ", 1)))
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
            case "BUILD":  # attributes of a dict, such as _metadata, say nothing about the values
                stack.pop()
                _dict(stack[-1])
            case "STOP":
                return stack.pop()
            case name:
                raise UserError(f"it uses {name} of pickle, which a state dict has no use for; refused, {_CURE}")


def _tensors(state) -> dict[str, _Tensor]:
    """The tensors of a state dict, also where a training script has wrapped it."""
    state = _dict(state)
    for key in _NESTED:
        if isinstance(state.get(key), dict):
            state = state[key]
    return {str(name): value for name, value in state.items() if isinstance(value, _Tensor)}


def _read_zip(path: Path) -> dict[str, StoredTensor]:
    with open_archive(path) as archive:
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "data.pkl")
        tensors = _tensors(_unpickle(io.BytesIO(read_member(archive, index))))
        folder = index.removesuffix("data.pkl") + "data/"
        buffers = {key: read_member(archive, folder + key) for key in {t.storage.key for t in tensors.values()}}
    return {name: tensor.within(buffers[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_legacy(path: Path) -> dict[str, StoredTensor]:
    # Mapped, because a read from a file takes the memory that is asked for, whatever the file has.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if _unpickle(stream) != _LEGACY_MAGIC:
            raise UserError("its first bytes are not torch's")
        for _header in ("protocol version", "machine"):
            _unpickle(stream)
        storages, buffers = {}, {}
        tensors = _tensors(_unpickle(stream, storages))
        for key in _unpickle(stream):
            count = int.from_bytes(stream.read(8), "little")
            buffers[key] = stream.read(count * _item_size(storages[key].dtype))
    return {name: tensor.within(buffers.get(tensor.storage.key, b"")) for name, tensor in tensors.items()}


def _read_torch(path: Path) -> dict[str, StoredTensor]:
    return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)


def _safe_dtype(name) -> str:
    if name not in _SAFE_DTYPES:
        raise UserError(f"its values are of dtype {printable(name)}; known: {', '.join(_SAFE_DTYPES)}")
    return _SAFE_DTYPES[name]


def _read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """A length, a JSON header of dtypes, shapes and offsets, then the values; see the format's specification."""
    contents = path.read_bytes()
    start = 8 + int.from_bytes(contents[:8], "little")
    if start > len(contents):
        raise UserError("it ends within its header")
    header = json.loads(contents[8:start])
    header.pop("__metadata__", None)
    tensors, ranges = {}, []
    for name, entry in header.items():
        dtype, shape = _safe_dtype(entry["dtype"]), tuple(map(operator.index, entry["shape"]))
        begin, end = (start + operator.index(offset) for offset in entry["data_offsets"])
        if min(shape, default=0) < 0 or end - begin != math.prod(shape) * _item_size(dtype):
            raise UserError(f"the shape of {printable(name)} is not that of its bytes")
        ranges.append((begin, end))
        buffer = memoryview(contents)[begin:end]
        tensors[name] = StoredTensor(shape, lambda b=buffer, d=dtype, s=shape: _values(b, d).reshape(s))
    ranges.sort()
    if [start, *(end for _, end in ranges)] != [*(begin for begin, _ in ranges), len(contents)]:
        raise UserError("its tensors overlap, leave gaps or reach beyond its end")
    return tensors


def read_state_dict(path: str | Path) -> dict[str, StoredTensor]:
    """Reads a state dict.

    Args:
        path: Path of a `.pth`, `.pt` or `.safetensors` file.

    Returns:
        A dict from parameter name to `StoredTensor`, in the file's order.

    Raises:
        UserError: The file is damaged, no torch checkpoint, or asks for anything but tensors.
        OSError: There is no such file, or it may not be read.
    """
    path = Path(path)
    try:
        if not path.stat().st_size:
            raise UserError("it is empty")
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except UserError as error:
        reason = str(error)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are opcodes
        reason = f"it is damaged ({printable(error) or type(error).__name__})"
    raise UserError(f"{path} cannot be read as a torch checkpoint: {reason}.")
