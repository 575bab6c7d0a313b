"""Safe reader for torch checkpoints, `.pth` and `.safetensors`, without torch.

A pickle is a program that can call any Python function. This interpreter knows only the opcodes and names that a state
dict needs; it never imports or calls anything. It reads torch's zip format and its legacy format. numpy.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import operator
import pickletools
import zipfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.weights.archives import open_archive, read_member
from keras_effnet.weights.stored_tensor import StoredTensor, printable

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
_NESTED = ("state_dict", "model")  # keys under which training scripts store the weights
_CURE = "save the model's state_dict() alone"


def _values(buffer: Any, dtype: str) -> np.ndarray:
    """Interpret bytes as numbers; bfloat16, which numpy lacks, is the upper half of a float32."""
    if dtype == "bfloat16":
        return (np.frombuffer(buffer, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(buffer, dtype)


def _shaped(buffer: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return _values(buffer, dtype).reshape(shape)


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """View of a storage that is read later; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def within(self, buffer: Any) -> StoredTensor:
        if len(buffer) != self.storage.size * _item_size(self.storage.dtype):
            raise UserError(f"storage {printable(self.storage.key)} does not have the claimed size")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        inside = 0 <= self.offset <= last < self.storage.size and min(self.strides, default=0) >= 0
        # A stride of 0 repeats elements, so a few bytes could exhaust the memory.
        if 0 not in self.shape and not (inside and math.prod(self.shape) <= self.storage.size):
            raise UserError("a tensor reaches outside its storage")
        return StoredTensor(self.shape, lambda: self._read(buffer))

    def _read(self, buffer: Any) -> np.ndarray:
        flat = _values(buffer, self.storage.dtype)
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
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if function == _REBUILD_TENSOR:
            if len(shape) == len(strides) and all(isinstance(number, int) for number in shape + strides):
                return _Tensor(storage, offset, shape, strides)
        case (_Tensor() as tensor, *_) if function == _REBUILD_PARAMETER:
            return tensor
    raise UserError("it rebuilds a tensor from something else; refused")


def _storage(saved_id: object) -> _Storage:
    match saved_id:
        # A sixth element would make it a view of another storage, which torch has not written since 0.4.
        case ("storage", _Name("torch", kind), str(key), _, int(size), *view) if view in ([], [None]):
            return _Storage(key, _STORAGE_DTYPES[kind], size)
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


def _unpickle(stream: Any, storages: dict[str, _Storage] | None = None) -> Any:
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


def _tensors(state: object) -> dict[str, _Tensor]:
    """The tensors of a state dict, which a training script may have wrapped in another dict."""
    found = _dict(state)
    for key in _NESTED:
        if isinstance(found.get(key), dict):
            found = found[key]
    return {str(name): value for name, value in found.items() if isinstance(value, _Tensor)}


def _read_zip(path: Path) -> dict[str, StoredTensor]:
    with open_archive(path) as archive:
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "data.pkl")
        tensors = _tensors(_unpickle(io.BytesIO(read_member(archive, index))))
        folder = index.removesuffix("data.pkl") + "data/"
        buffers = {key: read_member(archive, folder + key) for key in {t.storage.key for t in tensors.values()}}
    return {name: tensor.within(buffers[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_legacy(path: Path) -> dict[str, StoredTensor]:
    # Memory-mapped, because a read allocates the requested size, even beyond the end of the file.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if _unpickle(stream) != _LEGACY_MAGIC:
            raise UserError("its first bytes are not torch's")
        for _header in ("protocol version", "machine"):
            _unpickle(stream)
        storages: dict[str, _Storage] = {}
        buffers: dict[str, bytes] = {}
        tensors = _tensors(_unpickle(stream, storages))
        for key in _unpickle(stream):
            count = int.from_bytes(stream.read(8), "little")
            buffers[key] = stream.read(count * _item_size(storages[key].dtype))
    return {name: tensor.within(buffers.get(tensor.storage.key, b"")) for name, tensor in tensors.items()}


def _read_torch(path: Path) -> dict[str, StoredTensor]:
    return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)


def _safe_dtype(name: object) -> str:
    if name not in _SAFE_DTYPES:
        raise UserError(f"its values have dtype {printable(name)}; known: {', '.join(_SAFE_DTYPES)}")
    return _SAFE_DTYPES[name]


def _read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Read a length, a JSON header with dtypes, shapes and offsets, and the values."""
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
            raise UserError(f"the shape of {printable(name)} does not match its bytes")
        ranges.append((begin, end))
        buffer = memoryview(contents)[begin:end]
        tensors[name] = StoredTensor(shape, partial(_shaped, buffer, dtype, shape))
    ranges.sort()
    if [start, *(end for _, end in ranges)] != [*(begin for begin, _ in ranges), len(contents)]:
        raise UserError("its tensors overlap, leave gaps or reach beyond its end")
    return tensors


def read_state_dict(path: str | Path) -> dict[str, StoredTensor]:
    """Read a state dict from a torch or safetensors file.

    Args:
        path: Path of a `.pth`, `.pt` or `.safetensors` file.

    Returns:
        A dict from parameter name to `StoredTensor`, in the file's order.

    Raises:
        UserError: The file is damaged, is not a torch checkpoint, or needs more than tensors.
        OSError: The file does not exist or is not readable.
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
    except Exception as error:  # damaged files raise many kinds of errors
        reason = f"it is damaged ({printable(error) or type(error).__name__})"
    raise UserError(f"{path} cannot be read as a torch checkpoint: {reason}.")
