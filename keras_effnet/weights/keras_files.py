"""Reader for Keras weights: `.weights.h5`, `.keras` and legacy `.h5`, as layer name -> tensors.

Runs no code from the file. h5py and numpy.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import h5py

from keras_effnet.errors import UserError
from keras_effnet.weights.archives import open_archive, read_member
from keras_effnet.weights.hdf5 import group_at, tensor_at
from keras_effnet.weights.stored_tensor import StoredTensor, printable

Layers = dict[str, list[StoredTensor]]


def _strings(group: h5py.Group, key: str) -> list[str]:
    attribute = group.attrs.get_id(key)
    if len(attribute.shape or ()) != 1 or (attribute.shape[0] and not h5py.check_string_dtype(attribute.dtype)):
        raise UserError(f"{key} of {group.name} is not a list of names")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[key]]


def _names(group: h5py.Group, key: str) -> list[str]:
    """A list of names from an attribute; Keras splits a long one into `key0`, `key1`, ..."""
    if key in group.attrs:
        return _strings(group, key)
    parts: list[list[str]] = []
    while f"{key}{len(parts)}" in group.attrs:
        parts.append(_strings(group, f"{key}{len(parts)}"))
    if not parts:
        raise UserError(f"{group.name} has no {key}")
    return [name for part in parts for name in part]


def _legacy_layers(file: h5py.Group) -> Layers:
    root = group_at(file, "model_weights") if "model_weights" in file else file
    layers = {}
    for name in _names(root, "layer_names"):
        # Pixel statistics of `keras.applications`, which are constants in the networks of this package.
        if name.split("_")[0] == "normalization":
            continue
        group = group_at(root, name)
        if tensors := [tensor_at(group, path) for path in _names(group, "weight_names")]:
            layers[name] = tensors
    return layers


def _layers(file: h5py.Group, seen: set[h5py.Group]) -> Layers:
    """Layers of a Keras 3 file, whose groups are named by class (`conv2d_7`); `vars` has the layer's name."""
    layers: Layers = {}
    root = group_at(file, "layers")
    if root in seen:  # a cycle of groups has no end
        raise UserError(f"it contains a group twice, as {root.name}; refused")
    seen.add(root)
    for entry in root:
        group = group_at(root, entry)
        if "layers" in group:  # a model within the model
            layers |= _layers(group, seen)
        if "vars" not in group or not len(variables := group_at(group, "vars")):
            continue
        name = str(variables.attrs.get("name", ""))
        if not name or name in layers:
            raise UserError(f"{variables.name} does not name its layer; save the weights again with Keras 3.15")
        if name.split("_")[0] != "normalization":
            layers[name] = [tensor_at(variables, str(number)) for number in range(len(variables))]
    return layers


def _h5_layers(source: Path | io.BytesIO) -> Layers:
    # The tensors read from it later; it is closed with the last of them.
    file = h5py.File(source, "r")
    return _layers(file, set()) if "layers" in file else _legacy_layers(file)


def _archive_layers(path: Path) -> Layers:
    with open_archive(path) as archive:
        return _h5_layers(io.BytesIO(read_member(archive, "model.weights.h5")))


def read_layers(path: str | Path) -> Layers:
    """Read the weights in a file that Keras saved.

    Args:
        path: Path of a `.weights.h5`, a `.keras`, or a legacy `.h5` of weights or of a whole model.

    Returns:
        A dict from layer name to its `StoredTensor`s in the layer's order. Layers without weights, and the
        `normalization` that `keras.applications` adds, are left out.

    Raises:
        UserError: The file is damaged, of another kind, or refers to other files.
    """
    path = Path(path)
    reader: Callable[[Path], Layers] = _archive_layers if path.suffix == ".keras" else _h5_layers
    try:
        if not path.stat().st_size:
            raise UserError("it is empty")
        return reader(path)
    except Exception as error:  # zip, h5 and its bindings each fail in their own way on a damaged file
        reason = (printable(error) or type(error).__name__).removesuffix(".")
    # Raised outside the handler: a chained traceback would keep the file open.
    raise UserError(f"{path} cannot be read as Keras weights: {reason}.")
