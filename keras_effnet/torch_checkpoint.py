"""Reads torch checkpoints with numpy alone and runs no code from them.

A pickle is a program. This unpickler knows the four names that a state dict needs and refuses every other, so a
hostile file ends in an error, not in a shell. Both of torch's formats are read: the zip of today and the legacy stream.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_effnet.errors import UserError

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
}


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage that is read later; strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, buffer: bytes) -> np.ndarray:
        flat = np.frombuffer(buffer, self.storage.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and not (0 <= self.offset <= last < flat.size and min(self.strides, default=0) >= 0):
            raise UserError("A tensor reaches outside its storage: the checkpoint is damaged.")
        steps = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


def _rebuild_tensor(storage, offset, shape, strides, *_unused) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_unused) -> _Tensor:
    return tensor


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Builds ordered dicts of tensors and nothing else."""

    def find_class(self, module, name):
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UserError(
                f"The checkpoint asks for {module}.{name}, which a state dict has no use for; refused. "
                "Save the model's state_dict() alone."
            ) from None

    def persistent_load(self, saved_id):
        kind, dtype, key, _location, size = saved_id[:5]
        if kind != "storage":
            raise UserError(f"The checkpoint holds a {kind!r}, not only tensors; refused.")
        return _Storage(str(key), dtype, size)


def _read_zip(path: Path) -> tuple[dict, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if index is None:
            raise UserError(f"{path} is a zip archive without data.pkl, so no torch checkpoint.")
        with archive.open(index) as stream:
            state = _Unpickler(stream).load()
        folder = index.removesuffix("data.pkl")
        keys = {tensor.storage.key for tensor in state.values() if isinstance(tensor, _Tensor)}
        return state, {key: archive.read(f"{folder}data/{key}") for key in keys}


def _read_legacy(path: Path) -> tuple[dict, dict[str, bytes]]:
    with path.open("rb") as stream:
        if _Unpickler(stream).load() != _LEGACY_MAGIC:
            raise UserError(f"{path} is no torch checkpoint: its first bytes are not torch's.")
        for _header in ("protocol version", "machine"):
            _Unpickler(stream).load()
        state = _Unpickler(stream).load()
        storages = {tensor.storage.key: tensor.storage for tensor in state.values() if isinstance(tensor, _Tensor)}
        buffers = {}
        for key in _Unpickler(stream).load():
            count = int.from_bytes(stream.read(8), "little")
            dtype = np.dtype(storages[key].dtype) if key in storages else np.dtype("<f4")
            buffers[key] = stream.read(count * dtype.itemsize)
        return state, buffers


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict.

    Args:
        path: Path of a `.pth` or `.pt` file.

    Returns:
        A dict from parameter name to array, in the file's order.

    Raises:
        UserError: The file is damaged, no torch checkpoint, or asks for anything but tensors.
    """
    path = Path(path)
    try:
        state, buffers = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        tensors = {name: value for name, value in state.items() if isinstance(value, _Tensor)}
        return {name: tensor.read(buffers[tensor.storage.key]) for name, tensor in tensors.items()}
    except UserError:
        raise
    except OSError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise UserError(f"{path} cannot be read as a torch checkpoint ({type(error).__name__}: {error}).") from error
