"""Checks of a `.keras` file before Keras reads it: no code, no foreign objects, no member out of proportion.

A `.keras` file is a zip of a configuration and an HDF5 file. The configuration names the classes that Keras is to
import and call, so it is a program of a kind; here every name in it is compared with what networks are made of. Pure
Python.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.weights.archives import open_archive, read_member, stored_member
from keras_effnet.weights.stored_tensor import printable

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

MIB = 1 << 20
_LIMITS = {CONFIG: 16 * MIB, METADATA: MIB}  # B7's configuration has 0.8 MB
_COPIES = 16  # of the weights: optimizers keep up to five values per weight, loss scaling saves them twice
_PER_VARIABLE = 64 << 10  # bytes of HDF5 around one variable and its copies, of which Keras uses about 2 kB each

_CODE = ("Lambda", "__lambda__")
_FILES = (  # layers that load a file, a pickle or code of another library
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
)
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
_TYPES = ("bool", "int", "uint", "float", "bfloat")  # a dtype of text, such as U99999999, claims gigabytes
_PARTS = {  # of `keras` and of `keras.src`
    "activations",
    "constraints",
    "dtype_policies",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "quantizers",
    "random",
    "regularizers",
}


@contextmanager
def open_model_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a `.keras` file, refusing members that Keras does not write, compresses not, or keeps small."""
    with open_archive(path) as archive:
        for name in archive.namelist():
            if name.startswith("assets/"):
                raise UserError("it holds assets, such as a vocabulary, which no image network has; refused")
            if name not in (CONFIG, METADATA, WEIGHTS):
                raise UserError(f"it holds {printable(name)}, unlike any file that Keras saves; refused")
            size = stored_member(archive, name).file_size
            if size > _LIMITS.get(name, size):
                raise UserError(f"its {name} has {size:,} bytes, more than {_LIMITS[name]:,}; refused")
        yield archive


def read_config(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The configuration of a model, as it is: `check_config` looks at it.

    Raises:
        UserError: It is no JSON object.
    """
    try:
        config = json.loads(read_member(archive, CONFIG))
    except (ValueError, RecursionError) as error:
        raise UserError(f"its {CONFIG} is no JSON: {printable(error)}") from None
    if not isinstance(config, dict):
        raise UserError(f"its {CONFIG} is no JSON object")
    return config


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every description of an object in a configuration, without recursion, which a file could exhaust."""
    waiting = [config]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            waiting.extend(found.values())
            if "class_name" in found:
                yield found
        elif isinstance(found, list):
            waiting.extend(found)


def _of_keras(module: str, class_name: str) -> bool:
    if module == "builtins":  # of functions: Keras looks them up among its own
        return class_name == "function"
    names = module.split(".")
    names = names[:1] + names[2:] if names[1:2] == ["src"] else names
    if names[1:2] == ["backend"] and names[3:4] == ["optimizers"]:  # PyTorch has optimizers of its own
        names = names[:1] + names[3:]
    return names[0] == "keras" and (len(names) == 1 or names[1] in _PARTS)


def check_config(config: Any, registered: Callable[[str], bool]) -> None:
    """Refuse a configuration that names anything but the parts of Keras that networks consist of.

    Args:
        config: What JSON holds: dicts, lists, strings and numbers.
        registered: Function from a name such as `"my_package>MyLayer"` to whether this process has registered it.

    Raises:
        UserError: It holds Python code, names a layer that reads other files, or an object that is not of Keras.
    """
    for found in _objects(config):
        name, module, alias = found["class_name"], found.get("module"), found.get("registered_name")
        inner = found.get("config")
        label = f" {printable(inner['name'], 40)!r}" if isinstance(inner, dict) and "name" in inner else ""
        if name in _CODE:
            raise UserError(
                f"it holds Python code (a Lambda layer or function{label}), which is never run; build the network of "
                "other Keras layers and save it again"
            )
        if name in _FILES:
            raise UserError(f"its layer{label} is a {name}, which reads other files or code; refused")
        if not isinstance(name, str) or not isinstance(module, str | None):
            raise UserError(f"it names a class {printable(name, 40)!r}, which is no name; refused")
        if isinstance(alias, str) and registered(alias):
            continue
        if name.startswith("__") and name not in _VALUES:
            raise UserError(f"it holds an object of the kind {printable(name, 40)}, which no network needs; refused")
        if name in ("__numpy__", "__tensor__"):
            kind = inner.get("dtype") if isinstance(inner, dict) else None
            if not (isinstance(kind, str) and kind.rstrip("0123456789") in _TYPES):
                raise UserError(f"it holds an array of {printable(kind, 40)}, which are no numbers; refused")
        if module is not None and not _of_keras(module, name):
            shown = printable(f"{module}.{inner if name == 'function' else name}", 80)
            raise UserError(
                f"it needs {shown}, which is not of Keras: register it with keras.saving.register_keras_serializable "
                "if it is yours; nothing is imported"
            )


def check_size(variables: int, claimed: int, stored: int) -> None:
    """Compare the bytes of the weights that a configuration describes with those that the file stores.

    Args:
        variables: Int, number of variables.
        claimed: Int, bytes of their values.
        stored: Int, size of the file's weights.

    Raises:
        UserError: The file is too small to hold them, or many times too large.
    """
    if stored < claimed:
        raise UserError(f"its configuration describes {claimed:,} bytes of weights, but it stores {stored:,}; refused")
    if stored > _COPIES * claimed + _PER_VARIABLE * variables + MIB:
        raise UserError(f"it stores {stored:,} bytes of weights, but its configuration describes {claimed:,}; refused")
