"""Safe reader for torch checkpoints, `.pth` and `.safetensors`, without torch.

It reads torch's zip format, its legacy format and safetensors. numpy.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import operator
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.weights.archives import open_archive, read_member
from keras_effnet.weights.stored_tensor import StoredTensor, printable
from keras_effnet.weights.torch_pickle import Storage, as_numbers, item_size, tensors_of, unpickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_SAFE_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8", "I32": "<i4", "U8": "<u1"}


def _shaped(buffer: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return as_numbers(buffer, dtype).reshape(shape)


def _read_zip(path: Path) -> dict[str, StoredTensor]:
    with open_archive(path) as archive:
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "data.pkl")
        tensors = tensors_of(unpickle(io.BytesIO(read_member(archive, index))))
        folder = index.removesuffix("data.pkl") + "data/"
        buffers = {key: read_member(archive, folder + key) for key in {t.storage.key for t in tensors.values()}}
    return {name: tensor.within(buffers[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_legacy(path: Path) -> dict[str, StoredTensor]:
    # Memory-mapped, because a read allocates the requested size, even beyond the end of the file.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if unpickle(stream) != _LEGACY_MAGIC:
            raise UserError("its first bytes are not torch's")
        for _header in ("protocol version", "machine"):
            unpickle(stream)
        storages: dict[str, Storage] = {}
        buffers: dict[str, bytes] = {}
        tensors = tensors_of(unpickle(stream, storages))
        for key in unpickle(stream):
            count = int.from_bytes(stream.read(8), "little")
            buffers[key] = stream.read(count * item_size(storages[key].dtype))
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
        if min(shape, default=0) < 0 or end - begin != math.prod(shape) * item_size(dtype):
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
