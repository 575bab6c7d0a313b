"""`.keras` files back into models that go on where they stopped, loss scaling included.

Keras stores the dtype policy of every layer but not the model's, which is where `compile` looks to decide on loss
scaling: a plain reload trains `mixed_float16` unscaled, and without the optimizer's state, which no longer fits. Here
the policy is read off the layers. Keras alone, no `tf.`; of this package `errors` and `fused`.
"""

from __future__ import annotations

import json
import zipfile
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import keras

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.errors import UserError, first_line
from keras_effnet.models.fused_batch_norm import fuse_batch_norm

TOO_DEEP = "Keras walks a graph recursively, and this is too deep for Python: call sys.setrecursionlimit(10_000) first."


def policy_of(model: keras.Model) -> keras.dtype_policies.DTypePolicy:
    """The dtype policy that a network was built under: the first mixed one of its layers, else that of the last layer.

    Args:
        model: Keras model, reloaded or built around another, so that its own `dtype_policy` tells nothing.

    Example:

    >>> keras_effnet.models.saving.policy_of(keras_effnet.EfficientNetB0(weights=None, dtype="mixed_float16")).name
    'mixed_float16'
    """
    policies = [layer.dtype_policy for layer in computing_layers(model)] or [model.dtype_policy]
    return next((policy for policy in policies if policy.compute_dtype != policy.variable_dtype), policies[-1])


@contextmanager
def _failing_as(message: str):
    try:
        yield
    except RecursionError:
        raise UserError(TOO_DEEP) from None
    except Exception as error:  # zip, JSON, h5 and Keras each fail in their own way on a damaged file
        raise UserError(f"{message}: {first_line(error)}") from error


def load_model(path: str | Path, *, compile: bool = True) -> keras.Model:
    """Opens a `.keras` file as `keras.models.load_model` does, with its dtype policy and its optimizer's whole state.

    A model compiled under `mixed_float16` comes back with its loss scale and counters, so training goes on as if it had
    not been interrupted. Two things no `.keras` file holds: the state of dropout's random generators, and what an
    optimizer's `exclude_from_weight_decay` was told (`training.train(resume=True)` tells it again). Code in the file,
    that is a Python `lambda`, is refused.

    Args:
        path: Path of a `.keras` file.
        compile: Bool, whether to compile as the file says and restore the optimizer; False suits inference.

    Returns:
        The Keras model.

    Raises:
        UserError: The file is missing, damaged, of another kind, or needs custom code.

    Example:

    >>> model = keras_effnet.load_model("runs/train/digits/weights/last.keras")
    >>> model.fit(batches)
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Model {path} does not exist.")
    if path.suffix != ".keras":
        raise UserError(f"{path.name} is no .keras file; build the network and use load_weights if it holds weights.")
    with _failing_as(f"{path} is not a Keras model"):
        model = fuse_batch_norm(keras.models.load_model(path, compile=False))
        model.dtype_policy = policy_of(model)  # before `compile` looks at it
    if compile:
        with _failing_as(f"{path} opens with compile=False only"):
            _compile_as_saved(model, path)
    return model


def _compile_as_saved(model: keras.Model, path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json")).get("compile_config")
    if config:
        model.compile_from_config(config)
        load_state(model, path)  # again, for the optimizer's: only now are there variables that they fit


def load_state(model: keras.Model, path: str | Path) -> None:
    """Loads a `.keras` file's weights, and the optimizer's state where the model's optimizer is built.

    The same as `model.load_weights(path)`, several times as fast: h5 jumps to and fro, which a zip member is slow at.

    Args:
        model: Keras model of the same architecture.
        path: Path of a `.keras` file.
    """
    with zipfile.ZipFile(path) as archive, TemporaryDirectory() as folder:
        model.load_weights(archive.extract("model.weights.h5", folder))
