"""Groups and datasets of an HDF5 file that is not trusted.

HDF5 can link to other files, and claim or unpack to sizes that it does not have: only plain datasets in the file itself
are accepted, and their shapes are checked before any value is read. h5py and numpy.
"""

from __future__ import annotations

from typing import Any

import h5py

from keras_effnet.errors import UserError
from keras_effnet.weights.stored_tensor import StoredTensor

_NUMBERS = "fiub"  # kinds of numpy dtypes; weights are floats, states of optimizers and random generators are not
_OPAQUE = "V"  # h5py's kind for bfloat16, which HDF5 lacks


def _member(group: h5py.Group, name: str) -> Any:
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise UserError(f"{group.name.rstrip('/')}/{name} is a link; refused")
    return group[name]


def member(group: h5py.Group, path: str) -> Any:
    """The member at a path below a group; links are refused."""
    found = group
    for name in path.strip("/").split("/"):
        if not isinstance(found, h5py.Group):
            raise UserError(f"{found.name} is no group")
        if name not in found:
            raise UserError(f"it lacks {found.name.rstrip('/')}/{name}")
        found = _member(found, name)
    return found


def group_at(group: h5py.Group, path: str) -> h5py.Group:
    """The group at a path below another."""
    found = member(group, path)
    if not isinstance(found, h5py.Group):
        raise UserError(f"{found.name} is no group")
    return found


def _check_dataset(dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose values are not in the file, as they are."""
    if dataset.external or dataset.is_virtual:
        raise UserError(f"{dataset.name} stores its values in another file; refused")
    if dataset.chunks:  # a chunk can unpack to more than the shape claims
        raise UserError(f"{dataset.name} is chunked or compressed, unlike anything that Keras writes; refused")


def tensor_at(group: h5py.Group, path: str) -> StoredTensor:
    """The dataset of floating-point numbers at a path below a group."""
    dataset = member(group, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f" or dataset.shape is None:
        raise UserError(f"{dataset.name} does not hold floating-point numbers")
    _check_dataset(dataset)
    return StoredTensor(dataset.shape, lambda: dataset[()])


def check_contents(file: h5py.File) -> None:
    """Check every group and dataset of a file before another library reads it.

    Args:
        file: Open file.

    Raises:
        UserError: It links, refers to other files, compresses, or claims values that it does not hold.
    """
    waiting, seen = [file["/"]], set()
    while waiting:
        group = waiting.pop()
        if group in seen:  # a cycle of groups has no end
            raise UserError(f"it contains a group twice, as {group.name}; refused")
        seen.add(group)
        for found in (_member(group, name) for name in group):
            if isinstance(found, h5py.Group):
                waiting.append(found)
                continue
            if not isinstance(found, h5py.Dataset) or found.shape is None or found.dtype.kind not in _NUMBERS + _OPAQUE:
                raise UserError(f"{found.name} does not hold numbers; refused")
            _check_dataset(found)
            if found.id.get_storage_size() != found.size * found.dtype.itemsize:
                raise UserError(f"{found.name} claims more values than the file holds; refused")
