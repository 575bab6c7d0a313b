"""Checks of the arguments of a builder, so that a mistake is one line instead of a wrong network. Keras only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np

from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.errors import UserError, closest, first_line, whole_number
from keras_effnet.system.files import why_no_file

MIN_SIZE = 32
CHANNELS_LAST = "Channels come last in every network of this package"

InputShape: TypeAlias = tuple[int | None, int | None, int]
T = TypeVar("T")


def check_data_format() -> None:
    """Refuse Keras' global `"channels_first"`, under which layers would take the height for channels.

    Raises:
        UserError: It is set.
    """
    if keras.config.image_data_format() != "channels_last":
        raise UserError(
            f"{CHANNELS_LAST}, but Keras is set to channels_first: call "
            "keras.config.set_image_data_format('channels_last') and pass images as (height, width, channels)."
        )


def check_switches(**given: Any) -> None:
    """Refuse values of switches that are neither True nor False: `"False"` would count as True.

    Raises:
        UserError: The message names the switch.
    """
    for name, value in given.items():
        if not isinstance(value, bool | int | np.bool_) or value not in (0, 1):
            raise UserError(f"{name} must be True or False, got {value!r}.")


def checked_classes(classes: Any) -> int:
    """The number of classes as an int of at least 1.

    Raises:
        UserError: It is another number, or none.
    """
    return whole_number("classes", classes)


def from_keras(what: str, get: Callable[[Any], T], value: Any) -> T:
    """Look an argument up with a function of Keras, whose errors become one line.

    Raises:
        UserError: Keras does not know the value.
    """
    try:
        return get(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} {value!r} is unknown to Keras: {first_line(error)}") from None


def checked_shape(input_shape: Any, spec: ArchitectureSpec, include_top: bool) -> InputShape:
    """The input shape of a network, by default the spec's size with a classifier and any size without.

    Raises:
        UserError: It is not of three dimensions, smaller than the network's stride, or has its channels first.
    """
    if input_shape is None:
        side = spec.image_size if include_top else None
        return (side, side, 3)
    given = tuple(input_shape) if isinstance(input_shape, Sequence) and not isinstance(input_shape, str) else ()
    if len(given) != 3:
        raise UserError(f"input_shape must be (height, width, channels), got {input_shape!r}.")
    first, *rest = given
    if isinstance(first, int) and 0 < first < MIN_SIZE and all(n is None or not 0 < n < MIN_SIZE for n in rest):
        last = (*rest, first)
        raise UserError(f"{CHANNELS_LAST}: pass input_shape={last} instead of {given}.")
    if given[2] is None:
        raise UserError(f"input_shape must be (height, width, channels), got {given}.")
    sides = [None if n is None else whole_number("Each side of input_shape", n, -(10**9)) for n in given[:2]]
    channels = whole_number("The channels of input_shape", given[2])
    if any(side is not None and side < MIN_SIZE for side in sides):
        raise UserError(f"input_shape must be at least {MIN_SIZE}x{MIN_SIZE}, got {given}.")
    return sides[0], sides[1], channels


def check_input_tensor(tensor: Any, input_shape: Any) -> None:
    """Refuse an `input_tensor` that is no symbolic tensor, such as an array, or has another shape than `input_shape`.

    Raises:
        UserError: It is not one, or the shapes differ.
    """
    if tensor is None:
        return
    if not isinstance(tensor, keras.KerasTensor):
        raise UserError(f"input_tensor must be a Keras tensor such as keras.Input((224, 224, 3)), got {type(tensor)}.")
    if not isinstance(input_shape, Sequence):
        return
    shape, given = tuple(tensor.shape[1:]), tuple(input_shape)
    if len(shape) != len(given) or any(a != b for a, b in zip(shape, given, strict=True) if None not in (a, b)):
        raise UserError(f"input_tensor has the shape {shape}, not the input_shape {given}: leave out input_shape.")


def check_weights(weights: Any) -> None:
    """Refuse `weights` that are neither None, `"imagenet"` nor an existing file.

    Raises:
        UserError: The message names the choices.
    """
    if weights is None or (isinstance(weights, str) and weights == "imagenet"):
        return
    near = " Did you mean 'imagenet'?" if closest(str(weights), ["imagenet"]) else ""
    choices = "pass None for random weights, 'imagenet', or the path of a weights file."
    if not isinstance(weights, str | os.PathLike):
        raise UserError(f"weights cannot be {weights!r}: {choices}")
    if not Path(weights).is_file():
        raise UserError(f"Weights file {weights} {why_no_file(weights)}: {choices}{near}")
