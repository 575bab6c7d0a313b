"""Strict loading of weights files into models: every tensor is matched, or nothing changes and an error is raised.

The readers turn a file into layer name -> `StoredTensor`s. These are compared with the model by name and shape, and
values are read and assigned only if everything fits. numpy; models are read by their attributes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import UserError, check_model, check_path
from keras_effnet.system.files import why_no_file
from keras_effnet.weights.effdet_names import CLASS_PREDICTION
from keras_effnet.weights.keras_files import read_layers
from keras_effnet.weights.stored_tensor import StoredTensor, printable
from keras_effnet.weights.torch_files import read_state_dict
from keras_effnet.weights.torch_layers import HEAD, to_layers

logger = logging.getLogger(__name__)

STEM = "stem_conv"
Shape = tuple[int, ...]
_KERAS_SUFFIXES, _TORCH_SUFFIXES = (".h5", ".keras"), (".pth", ".pt", ".bin", ".safetensors")


def _read(model: Any, path: Path) -> dict[str, list[StoredTensor]]:
    if not path.is_file():
        raise UserError(f"Weights file {path} {why_no_file(path)}.")
    if path.name.endswith(_KERAS_SUFFIXES):
        return read_layers(path)
    if path.name.endswith(_TORCH_SUFFIXES):
        return to_layers(model, read_state_dict(path), path)
    known = ", ".join((".weights.h5", *_KERAS_SUFFIXES, *_TORCH_SUFFIXES))
    raise UserError(f"Unknown kind of weights file: {path.name}. Known: {known}.")


def adapt_stem(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapt the kernel of a stem trained on RGB to another number of input channels.

    For one channel, R, G and B are summed, so a grey image gives the same output as its RGB copy. For more, they are
    repeated (R, G, B, R, ...) and scaled by 3 / channels, which preserves the scale of the output. `ImageSpec.of` does
    the same with the pixel statistics.

    Args:
        kernel: Array of shape `(height, width, 3, filters)`.
        channels: Int, input channels of the model.

    Returns:
        An array of shape `(height, width, channels, filters)`.
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return np.tile(kernel, (1, 1, ceil(channels / 3), 1))[:, :, :channels] * (3 / channels)


def _adapted_stem(stored: list[StoredTensor], layer: Any) -> list[StoredTensor]:
    channels = layer.kernel.shape[2]
    shapes = [tensor.shape for tensor in stored]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][2] != 3 or channels == 3:
        return stored
    logger.warning("The stem was trained on 3 channels; its kernel is adapted to %d by summing or repeating.", channels)
    shape = (*shapes[0][:2], channels, shapes[0][3])
    return [StoredTensor(shape, lambda: adapt_stem(stored[0].read(), channels))]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(printable, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _difference(found: list[Shape], wanted: list[Shape]) -> str:
    """The first difference between the shapes of a layer's tensors."""
    if len(found) != len(wanted):
        return f"{len(found)} tensors instead of {len(wanted)}"
    return next(f"{printable(a)} instead of {b}" for a, b in zip(found, wanted, strict=True) if a != b)


def _check(model: Any, stored: dict[str, list[StoredTensor]], wanted: dict[str, list[Any]], path: Path) -> None:
    """Raise a `UserError` that describes how file and model differ, if they do."""
    shapes = {name: [tuple(variable.shape) for variable in variables] for name, variables in wanted.items()}
    found = {name: [tuple(tensor.shape) for tensor in tensors] for name, tensors in stored.items()}
    missing, unexpected = [n for n in shapes if n not in found], [n for n in found if n not in shapes]
    differing = [name for name in shapes if name in found and shapes[name] != found[name]]
    if not (missing or unexpected or differing):
        return
    report = []
    if missing:
        report.append(f"it lacks {_some(missing)}")
    if unexpected:
        report.append(f"the network has no {_some(unexpected)}")
    if differing:
        details = [f"{name} has {_difference(found[name], shapes[name])}" for name in differing]
        report.append(f"its {_some(details)}")
    cure = "Build the network that the weights belong to."
    if differing == [CLASS_PREDICTION] and not missing and not unexpected:
        cure = "Only the classes differ: use the file's number, or pass adapt=True for a random class prediction."
    elif missing == [HEAD] and not unexpected and not differing:
        cure = "The file has no classifier: build with include_top=False, or pass adapt=True for a random one."
    elif differing == [HEAD] and not missing and not unexpected:
        cure = "Only the classifier differs: use the file's number of classes, or pass adapt=True for a random one."
    elif differing == [STEM] and not missing and not unexpected:
        cure = "Only the stem differs: pass adapt=True to adapt one trained on RGB to other channel counts."
    raise UserError(f"{path.name} does not fit {model.name}: {'; '.join(report)}. {cure}")


def _differs(stored: list[StoredTensor], variables: Iterable[Any]) -> bool:
    return [tensor.shape for tensor in stored] != [tuple(variable.shape) for variable in variables]


def _values(stored: dict[str, list[StoredTensor]], wanted: Iterable[str], path: Path) -> dict[str, list[np.ndarray]]:
    """Read all values before any is assigned, so that a truncated file changes nothing."""
    try:
        arrays = {name: [tensor.read() for tensor in stored[name]] for name in wanted}
    except Exception as error:  # each format raises its own errors for damaged values
        reason = printable(error).rstrip(".")
    else:
        if odd := [name for name in wanted if any(array.dtype.kind != "f" for array in arrays[name])]:
            raise UserError(f"{path.name} does not hold floating-point numbers in {_some(odd)}: is it quantized?")
        return arrays
    raise UserError(f"The values in {path} cannot be read: {reason}.")


def matched_values(model: Any, path: str | Path, *, adapt: bool = False) -> list[tuple[Any, np.ndarray]]:
    """Match the variables of a model with the values in a weights file: all of them, or an error.

    Only names and shapes of the model are read, so its variables need no values yet.

    Args:
        model, path, adapt: As in `load_weights`.

    Returns:
        A list of pairs of variable and value; with `adapt`, without a classifier that does not fit.

    Raises:
        UserError: As in `load_weights`.
    """
    path = Path(path)
    stored = _read(model, path)
    wanted = {layer.name: layer.weights for layer in model.layers if layer.weights}
    if HEAD not in wanted:
        stored.pop(HEAD, None)
    if adapt:
        if STEM in stored and STEM in wanted:
            stored[STEM] = _adapted_stem(stored[STEM], model.get_layer(STEM))
        for head in (HEAD, CLASS_PREDICTION):
            if head in wanted and _differs(stored.get(head, []), wanted[head]):
                classes = f"{wanted[head][-1].shape[0]}" if head == HEAD else "as many"
                logger.warning(
                    "The classifier of %s does not have %s classes: a randomly initialized one is used.",
                    path.name,
                    classes,
                )
                stored.pop(head, None)
                del wanted[head]
    try:
        _check(model, stored, wanted, path)
        arrays = _values(stored, wanted, path)
    finally:
        stored.clear()  # a kept traceback would keep the file open
    return [pair for name, variables in wanted.items() for pair in zip(variables, arrays[name], strict=True)]


def load_weights(model: Any, path: str | Path, *, adapt: bool = False) -> None:
    """Load a weights file into a model strictly: every tensor must match, or nothing changes.

    Supported are Keras' `.weights.h5` and `.keras`, the legacy `.h5` of `keras.applications` (without its pixel
    statistics, which are constants in the networks of this package), and torch checkpoints, `.pth`, `.pt` or
    `.safetensors`, in the layouts of torchvision, timm and efficientnet_pytorch. No code from the file is run.

    A classifier in the file is ignored if the model has none.

    Args:
        model: Model of this package.
        path: Path of the file.
        adapt: Bool, whether to adapt a stem trained on RGB to the model's channels (see `adapt_stem`) and to skip a
            classifier with another number of classes, each with a warning. Otherwise both are errors.

    Raises:
        UserError: The file is missing, damaged, of an unknown kind or of another network, or the network's padding or
            batch normalization epsilon is not that of the weights. The model is unchanged.

    Example:

    >>> model = keras_effnet.EfficientNetB0(weights=None, padding="symmetric", bn_epsilon=1e-5)
    >>> keras_effnet.load_weights(model, "torchvision_efficientnet_b0.pth")
    """
    check_model(model)
    check_path("path", path)
    for variable, value in matched_values(model, path, adapt=adapt):
        variable.assign(value)
