"""Loading of `.keras` files with dtype policy and optimizer state, loss scaling included. Keras only.

Keras saves the dtype policy of every layer but not that of the model, by which `compile` decides on loss scaling. A
plain reload trains `mixed_float16` without it, and drops the optimizer's state, which no longer fits. Here the model's
policy is restored from its layers.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import keras
import numpy as np

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.errors import UserError, check_path
from keras_effnet.models.initial_values import build_with
from keras_effnet.models.losses import boxes, weighted  # noqa: F401 - registers the losses that files may name
from keras_effnet.system.files import why_no_file
from keras_effnet.weights.archives import stored_member
from keras_effnet.weights.hdf5 import check_contents
from keras_effnet.weights.keras_archive import (
    WEIGHTS,
    check_config,
    check_size,
    open_model_archive,
    read_config,
)
from keras_effnet.weights.stored_tensor import printable

TOO_DEEP = "Keras walks a graph recursively, and this is too deep for Python: call sys.setrecursionlimit(10_000) first."


def policy_of(model: keras.Model) -> keras.dtype_policies.DTypePolicy:
    """Dtype policy that a network was built with: the first mixed one of its layers, else that of the last layer.

    Args:
        model: Keras model, such as a reloaded one, whose own `dtype_policy` is not restored.

    Returns:
        The dtype policy.

    Example:

    >>> from keras_effnet.models import saving
    >>> saving.policy_of(keras_effnet.EfficientNetB0(weights=None, dtype="mixed_float16")).name
    'mixed_float16'
    """
    policies = [layer.dtype_policy for layer in computing_layers(model)] or [model.dtype_policy]
    return next((policy for policy in policies if policy.compute_dtype != policy.variable_dtype), policies[-1])


@contextmanager
def _failing_as(message: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{message}: {error}.") from None
    except RecursionError:
        raise UserError(TOO_DEEP) from None
    except Exception as error:  # zip, JSON, h5 and Keras raise different errors for a damaged file
        raise UserError(f"{message}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One line about an error of Keras, without its advice to switch the protection off."""
    innermost = str(error).rpartition("Exception encountered: ")[2]
    lines = [line for line in innermost.splitlines() if line.strip() and not line.startswith("A total of")]
    line = next(iter(lines), type(error).__name__)
    return printable(line.partition("If you trust")[0], 400)


def load_model(path: str | Path, *, compile: bool = True) -> keras.Model:
    """Load a `.keras` file like `keras.models.load_model`, with its dtype policy and complete optimizer state.

    A model compiled under `mixed_float16` keeps its loss scale and counters, so training resumes exactly. A `.keras`
    file lacks two things: the state of dropout's random generators, and the variables that `exclude_from_weight_decay`
    excluded (`training.train(resume=True)` excludes them again).

    The file need not be trusted. No code in it is run: a Python `lambda`, a layer that reads other files, and every
    object that is neither of Keras nor registered in this process (`keras.saving.register_keras_serializable`) is
    refused. So is a file that compresses its members or claims more weights than it holds.

    Args:
        path: Path of a `.keras` file.
        compile: Bool, whether to compile as saved and restore the optimizer; False is enough for inference.

    Returns:
        The Keras model.

    Raises:
        UserError: The file is missing, damaged, of another kind, hostile, or needs custom objects.

    Example:

    >>> model = keras_effnet.load_model("runs/train/digits/weights/last.keras")
    >>> model.fit(batches)
    """
    check_path("path", path)
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Model {path} {why_no_file(path)}.")
    if path.suffix != ".keras":
        raise UserError(f"{path.name} is not a .keras file; for weights, build the network and use load_weights.")
    with TemporaryDirectory() as folder:
        with _failing_as(f"{path} is not a Keras model"), open_model_archive(path) as archive:
            config = read_config(archive)
            compile_config = config.pop("compile_config", None)
            check_config(config, _registered)
            model = _network(config, stored_member(archive, WEIGHTS).file_size)
            weights = _extract_weights(archive, folder)
            _load_weights(model, weights)
            model.dtype_policy = policy_of(model)  # before `compile` reads it
        if compile and compile_config:
            with _failing_as(f"{path} opens with compile=False only"):
                check_config(compile_config, _registered)
                model.compile_from_config(compile_config)
                _load_weights(model, weights)  # again, because the optimizer has variables only now
    return model


def _registered(name: str) -> bool:
    return keras.saving.get_registered_object(name) is not None


def _network(config: dict[str, Any], stored: int) -> keras.Model:
    """Build the network of a configuration; its variables are allocated only if the file can hold their values.

    They start with zeros, because the file holds every value.
    """

    def build() -> keras.Model:
        model = keras.saving.deserialize_keras_object(config)
        if not isinstance(model, keras.Model):
            raise UserError(f"it describes no network but a {type(model).__name__}")
        return model

    def zeros(model: keras.Model) -> list[tuple[keras.Variable, np.ndarray]]:
        values = [np.broadcast_to(np.zeros((), _dtype(each)), each.shape) for each in model.weights]
        check_size(len(values), sum(math.prod(value.shape) * value.itemsize for value in values), stored)
        return list(zip(model.weights, values, strict=True))

    return build_with(build, zeros)


def _dtype(variable: keras.Variable) -> np.dtype:
    return np.dtype("float16" if variable.dtype == "bfloat16" else variable.dtype)


def _extract_weights(archive: zipfile.ZipFile, folder: str) -> str:
    """Extract the weights, which Keras reads several times faster than in a zip member: HDF5 seeks a lot."""
    file = archive.extract(WEIGHTS, folder)
    with h5py.File(file, "r") as contents:
        check_contents(contents)
    return file


def _load_weights(model: keras.Model, file: str) -> None:
    with warnings.catch_warnings():  # about lists of layers, ahead of the error that names the layer
        warnings.filterwarnings("ignore", message="Skipping nested container")
        model.load_weights(file)


def load_state(model: keras.Model, path: str | Path) -> None:
    """Load weights from a `.keras` file, and the optimizer's state if the model's optimizer is built.

    Equivalent to `model.load_weights(path)` but several times faster.

    Args:
        model: Keras model of the same architecture.
        path: Path of a `.keras` file.

    Raises:
        UserError: The file is damaged, or of another network.
    """
    path = Path(path)
    with _failing_as(f"{path} does not fit"), open_model_archive(path) as archive, TemporaryDirectory() as folder:
        _load_weights(model, _extract_weights(archive, folder))
