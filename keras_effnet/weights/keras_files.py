"""Reads what Keras saves, `.weights.h5`, `.keras` and the `.h5` of old, as layer name -> tensors. Runs no code from it.

HDF5 may point to other files and claim sizes that it does not have: only plain datasets inside the file are followed,
and nothing is read before its shape has been looked at. h5py and numpy; imports `stored` and `errors`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import h5py

from keras_effnet.errors import UserError
from keras_effnet.weights.stored_tensor import StoredTensor, open_archive, printable, read_member

Layers = dict[str, list[StoredTensor]]


def _member(group: h5py.Group, path: str):
    """What lies at a path below a group; only real members are followed, no links."""
    found = group
    for name in path.strip("/").split("/"):
        if not isinstance(found, h5py.Group):
            raise UserError(f"{found.name} is no group")
        if name not in found:
            raise UserError(f"it lacks {found.name.rstrip('/')}/{name}")
        if found.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise UserError(f"{found.name.rstrip('/')}/{name} is a link to another place or file; refused")
        found = found[name]
    return found


def _group(group: h5py.Group, path: str) -> h5py.Group:
    found = _member(group, path)
    if not isinstance(found, h5py.Group):
        raise UserError(f"{found.name} is no group")
    return found


def _tensor(group: h5py.Group, path: str) -> StoredTensor:
    dataset = _member(group, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f" or dataset.shape is None:
        raise UserError(f"{dataset.name} holds no floating-point numbers")
    if dataset.external or dataset.is_virtual:
        raise UserError(f"{dataset.name} keeps its values in another file; refused")
    if dataset.chunks:  # a chunk may unpack to any size, whatever the shape says
        raise UserError(f"{dataset.name} is chunked or compressed, which Keras never does and a bomb must; refused")
    return StoredTensor(dataset.shape, lambda: dataset[()])


def _strings(group: h5py.Group, key: str) -> list[str]:
    attribute = group.attrs.get_id(key)
    if len(attribute.shape or ()) != 1 or (attribute.shape[0] and not h5py.check_string_dtype(attribute.dtype)):
        raise UserError(f"{key} of {group.name} is no list of names")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[key]]


def _names(group: h5py.Group, key: str) -> list[str]:
    """A list of names from an attribute; Keras splits a long one into `key0`, `key1`, ..."""
    if key in group.attrs:
        return _strings(group, key)
    parts = []
    while f"{key}{len(parts)}" in group.attrs:
        parts.append(_strings(group, f"{key}{len(parts)}"))
    if not parts:
        raise UserError(f"{group.name} has no {key}")
    return [name for part in parts for name in part]


def _legacy_layers(file: h5py.Group) -> Layers:
    root = _group(file, "model_weights") if "model_weights" in file else file
    layers = {}
    for name in _names(root, "layer_names"):
        # Pixel statistics of `keras.applications`: the networks of this package carry theirs as constants.
        if name.split("_")[0] == "normalization":
            continue
        group = _group(root, name)
        if tensors := [_tensor(group, path) for path in _names(group, "weight_names")]:
            layers[name] = tensors
    return layers


def _layers(file: h5py.Group, seen: set[h5py.Group]) -> Layers:
    """Keras 3 numbers the groups by class (`conv2d_7`); the layer's name is an attribute of its `vars`."""
    layers: Layers = {}
    root = _group(file, "layers")
    if root in seen:  # groups within each other have no end
        raise UserError(f"a group in it is there twice, as {root.name}; refused")
    seen.add(root)
    for entry in root:
        group = _group(root, entry)
        if "layers" in group:  # a model within the model
            layers |= _layers(group, seen)
        if "vars" not in group or not len(variables := _group(group, "vars")):
            continue
        name = str(variables.attrs.get("name", ""))
        if not name or name in layers:
            raise UserError(
                f"{variables.name} does not say which layer it is of; save the weights anew with Keras 3.15"
            )
        if name.split("_")[0] != "normalization":
            layers[name] = [_tensor(variables, str(number)) for number in range(len(variables))]
    return layers


def _h5_layers(source) -> Layers:
    # Stays open for the tensors' sake, and closes with the last of them.
    file = h5py.File(source, "r")
    return _layers(file, set()) if "layers" in file else _legacy_layers(file)


def _archive_layers(path: Path) -> Layers:
    with open_archive(path) as archive:
        return _h5_layers(io.BytesIO(read_member(archive, "model.weights.h5")))


def read_layers(path: str | Path) -> Layers:
    """Reads the weights of a file that Keras saved.

    Args:
        path: Path of a `.weights.h5`, a `.keras`, or a legacy `.h5` of weights or of a whole model.

    Returns:
        A dict from layer name to its `StoredTensor`s in the layer's order. Layers without weights, and the
        `normalization` that `keras.applications` adds, are left out.

    Raises:
        UserError: The file is damaged, is of another kind, or points outside itself.
    """
    path = Path(path)
    reader: Callable = _archive_layers if path.suffix == ".keras" else _h5_layers
    try:
        if not path.stat().st_size:
            raise UserError("it is empty")
        return reader(path)
    except Exception as error:  # zip, h5 and its bindings each fail in their own way on a damaged file
        reason = (printable(error) or type(error).__name__).removesuffix(".")
    # Out here the first error and its traceback are gone, which would keep the file open.
    raise UserError(f"{path} cannot be read as Keras weights: {reason}.")
