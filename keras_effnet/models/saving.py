"""Loading of `.keras` files with dtype policy and optimizer state, loss scaling included. Keras only.

Keras saves the dtype policy of every layer but not that of the model, by which `compile` decides on loss scaling. A
plain reload trains `mixed_float16` without it, and drops the optimizer's state, which no longer fits. Here the model's
policy is restored from its layers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import keras

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.errors import UserError, first_line

TOO_DEEP = "Keras walks a graph recursively, and this is too deep for Python: call sys.setrecursionlimit(10_000) first."


def policy_of(model: keras.Model) -> keras.dtype_policies.DTypePolicy:
    """Dtype policy that a network was built with: the first mixed one of its layers, else that of the last layer.

    Args:
        model: Keras model, such as a reloaded one, whose own `dtype_policy` is not restored.

    Returns:
        The dtype policy.

    Example:

    >>> keras_effnet.models.saving.policy_of(keras_effnet.EfficientNetB0(weights=None, dtype="mixed_float16")).name
    'mixed_float16'
    """
    policies = [layer.dtype_policy for layer in computing_layers(model)] or [model.dtype_policy]
    return next((policy for policy in policies if policy.compute_dtype != policy.variable_dtype), policies[-1])


@contextmanager
def _failing_as(message: str) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise UserError(TOO_DEEP) from None
    except Exception as error:  # zip, JSON, h5 and Keras raise different errors for a damaged file
        raise UserError(f"{message}: {first_line(error)}") from error


def load_model(path: str | Path, *, compile: bool = True) -> keras.Model:
    """Load a `.keras` file like `keras.models.load_model`, with its dtype policy and complete optimizer state.

    A model compiled under `mixed_float16` keeps its loss scale and counters, so training resumes exactly. A `.keras`
    file lacks two things: the state of dropout's random generators, and the variables that `exclude_from_weight_decay`
    excluded (`training.train(resume=True)` excludes them again). Code in the file, such as a Python `lambda`, is
    refused.

    Args:
        path: Path of a `.keras` file.
        compile: Bool, whether to compile as saved and restore the optimizer; False is enough for inference.

    Returns:
        The Keras model.

    Raises:
        UserError: The file is missing, damaged, of another kind, or needs custom objects.

    Example:

    >>> model = keras_effnet.load_model("runs/train/digits/weights/last.keras")
    >>> model.fit(batches)
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Model {path} does not exist.")
    if path.suffix != ".keras":
        raise UserError(f"{path.name} is not a .keras file; for weights, build the network and use load_weights.")
    with _failing_as(f"{path} is not a Keras model"):
        model = keras.models.load_model(path, compile=False)
        model.dtype_policy = policy_of(model)  # before `compile` reads it
    if compile:
        with _failing_as(f"{path} opens with compile=False only"):
            _compile_as_saved(model, path)
    return model


def _compile_as_saved(model: keras.Model, path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json")).get("compile_config")
    if config:
        model.compile_from_config(config)
        load_state(model, path)  # again, because the optimizer has variables only now


def load_state(model: keras.Model, path: str | Path) -> None:
    """Load weights from a `.keras` file, and the optimizer's state if the model's optimizer is built.

    Equivalent to `model.load_weights(path)` but several times faster: HDF5 seeks a lot, which is slow in a zip member.

    Args:
        model: Keras model of the same architecture.
        path: Path of a `.keras` file.
    """
    with zipfile.ZipFile(path) as archive, TemporaryDirectory() as folder:
        model.load_weights(archive.extract("model.weights.h5", folder))
