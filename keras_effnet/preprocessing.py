"""Input specification of a network: size, crop, channels and normalisation, shared by training, data and export.

Also detects images whose values do not fit it. numpy; Keras models are read by their attributes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.architecture.baselines import EFFICIENTNET_B0, SPECS
from keras_effnet.architecture.specs import IMAGENET_MEAN, IMAGENET_STD, LARGEST_IMAGE, ArchitectureSpec
from keras_effnet.errors import UserError, check_model, instance_of, one_of, real_number, whole_number
from keras_effnet.system.documents import json_text, parse_json, read_text
from keras_effnet.system.files import write_text
from keras_effnet.system.typed_values import build

logger = logging.getLogger(__name__)

_NO_SPEC = "ImageSpec.of(architecture_spec(name)) is that of a network, ImageSpec.of_model(model) that of a built one."
FITS = ("crop", "stretch", "letterbox")
INTERPOLATIONS = ("bilinear", "bicubic")
PIXELS = (0.0, 255.0)

# Bounds of `range_mismatch`, wide enough for unusual but valid images.
_OVERSHOOT = 64.0  # unclipped bicubic resizing overshoots 0..255 by less
_NORMALISED = 16.0  # no usual normalisation reaches this value; nearly every image in 0..255 does
_MOST_CHANNELS = 4096
_GREY = 127.0  # of padding, for networks that do not normalize
_DARK = 0.02  # below this mean, images in 0..1 and black frames in 0..255 cannot be told apart


def square_side(name: str, input_shape: tuple[int | None, ...]) -> int | None:
    """The side of the square images that a model of this `(N, height, width, channels)` takes, None for any.

    Args:
        name: String, name of the model, for the message.
        input_shape: Tuple of four.

    Raises:
        UserError: Height and width differ: image files are cropped to squares.
    """
    _, height, width, channels = input_shape
    if height == width:
        return height
    if height in (1, 3, 4) and width == channels:
        raise UserError(f"{name} takes images of shape {input_shape[1:]}, channels first; here channels come last.")
    raise UserError(
        f"{name} takes images of {height}x{width} pixels, but image files are cropped to squares: build the network "
        "with a square input_shape, or call the Keras model on arrays of your own."
    )


@dataclass(frozen=True)
class ImageSpec:
    """Input specification of a network, from the decoded image to the first convolution.

    Images are RGB in 0..255. They are cropped, resized and normalised as `(pixel - mean) / std`, inside the network or
    before it.

    Args:
        size: Int, side of the square input in pixels.
        mean: Float or one float per channel, in 0..255.
        std: Float or one float per channel, in 0..255.
        crop: Float in (0, 1], side of the central square that evaluation keeps, as a share of the shorter side.
            ImageNet models use `size / (size + 32)`.
        channels: Int, number of channels.
        interpolation: `"bilinear"`, as in browsers and on phones, or `"bicubic"`, as in the published evaluations.
        in_network: Bool, whether the network normalises its input. False if it was built with
            `include_preprocessing=False` and expects the output of `preprocess_input`.
        fit: How an image becomes a square: `"crop"` keeps the central square; for detectors `"stretch"` resizes the
            whole image, as MediaPipe does, and `"letterbox"` keeps its aspect ratio and pads below or to the right.
    """

    size: int
    mean: float | tuple[float, ...] = IMAGENET_MEAN
    std: float | tuple[float, ...] = IMAGENET_STD
    crop: float = 1.0
    channels: int = 3
    interpolation: str = "bilinear"
    in_network: bool = True
    fit: str = "crop"

    def check_rgb(self) -> None:
        """Refuse decoded images for a network that takes no RGB.

        Raises:
            UserError: It takes another number of channels.
        """
        if self.channels != 3:
            raise UserError(
                f"The network expects {self.channels} channels; files are decoded to RGB, 3 channels. In Python it "
                "takes arrays: export_tflite(model, path, calibration=ARRAY), model.predict(ARRAY)."
            )

    def __post_init__(self) -> None:
        for side, largest in (("size", LARGEST_IMAGE), ("channels", _MOST_CHANNELS)):
            object.__setattr__(self, side, whole_number(side, getattr(self, side), -_MOST_CHANNELS))
            if not 1 <= getattr(self, side) <= largest:
                raise UserError(f"{side} must be an integer from 1 to {largest}, got {getattr(self, side)}.")
        if not 0 < real_number("crop", self.crop) <= 1:
            raise UserError(f"crop must lie in (0, 1], got {self.crop}.")
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        one_of("fit", self.fit, FITS)
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                real_number(name, value)
            else:
                value = tuple(value)
                object.__setattr__(self, name, value)  # JSON has lists, which are not hashable
                if len(value) != self.channels:
                    raise UserError(
                        f"{name} has {len(value)} values but the input has {self.channels} channels. Give a scalar "
                        f"mean and std, one value per channel, or build with include_preprocessing=False."
                    )

    @classmethod
    def of(
        cls,
        spec: ArchitectureSpec,
        size: int | None = None,
        crop: float = 1.0,
        channels: int = 3,
        interpolation: str = "bilinear",
    ) -> ImageSpec:
        """Input specification of an architecture, by default at its own size.

        The pixel statistics are those of RGB: one channel uses their mean, more than three repeat them (R, G, B, R,
        ...), as `weights.adapt_stem` repeats the kernels of the stem.
        """
        instance_of("spec", spec, ArchitectureSpec, "look one up with architecture_spec(name).")
        mean, std = (_for_channels(values, channels) for values in (spec.pixel_mean, spec.pixel_std))
        return cls(size or spec.image_size, mean, std, crop, channels, interpolation)

    @classmethod
    def of_model(cls, model: Any, size: int | None = None, crop: float = 1.0) -> ImageSpec:
        """Input specification of a built Keras model, from its input and the normalising layers after it.

        A network of this package whose first layer is the stem was built with `include_preprocessing=False`: it expects
        pixels normalised by the statistics of the architecture that its name starts with, else ImageNet's. Any other
        model without normalising layers gets mean 0 and std 1.

        Args:
            model: Functional Keras model with one image input.
            size: Int, side of the images in pixels; required if the model accepts any size.
            crop: Float in (0, 1].

        Raises:
            UserError: The model accepts any size and none is given, or it takes images that are not square.
        """
        check_model(model)
        size = size or square_side(model.name, model.input_shape)
        if size is None:
            raise UserError(f"{model.name} accepts images of any size: give one, such as size=224.")
        channels = model.input_shape[-1]
        layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
        if found := _normalisation(layers):
            scale, offset = found
            return cls(size, _plain(-offset / scale), _plain(1 / scale), crop, channels)
        if not layers or not layers[0].name.startswith("stem_"):
            return cls.raw((1, size, size, channels), crop)
        spec = next((spec for spec in SPECS.values() if model.name.startswith(spec.name)), EFFICIENTNET_B0)
        return replace(cls.of(spec, size, crop, channels), in_network=False)

    @classmethod
    def raw(cls, input_shape: tuple[int, ...], crop: float = 1.0) -> ImageSpec:
        """Input specification without normalisation, from an input shape alone, as for a `.tflite` file."""
        return cls(int(square_side("The file", input_shape) or 0), 0.0, 1.0, crop, int(input_shape[3]))

    @property
    def input_range(self) -> tuple[float, float]:
        """Lowest and highest input value of the network: 0 and 255, or these normalised."""
        if self.in_network:
            return PIXELS
        low, high = (((value - np.asarray(self.mean)) / np.asarray(self.std)) for value in PIXELS)
        return float(low.min()), float(high.max())

    @property
    def padding(self) -> tuple[float, ...]:
        """The pixel that letterboxing pads with: the mean, or grey."""
        mean = self.mean if np.any(self.mean) else _GREY
        return tuple(np.broadcast_to(mean, self.channels).tolist())

    def scale_and_offset(self) -> tuple[float | list[float], float | list[float]]:
        """`(scale, offset)`, plain floats such that `pixel * scale + offset` equals `(pixel - mean) / std`."""
        scale = 1.0 / np.asarray(self.std, dtype="float64")
        offset = -np.asarray(self.mean, dtype="float64") * scale
        return scale.tolist(), np.broadcast_to(offset, scale.shape).tolist() if scale.ndim else offset.tolist()

    def save(self, path: str | Path) -> None:
        """Write the specification to a JSON file, atomically."""
        write_text(path, json_text(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> ImageSpec:
        """Read a file that `save` wrote; missing fields get their defaults.

        Raises:
            UserError: The file is damaged or of another kind.
        """
        text = read_text(path)
        try:
            spec = build(cls, parse_json(text))
            if 0 in np.ravel(spec.std):
                raise UserError("std must not be 0")
            return spec
        except UserError as error:
            raise UserError(f"{path} was not written by ImageSpec.save: {error}") from None


def _for_channels(values: float | tuple[float, ...], channels: int) -> float | tuple[float, ...]:
    """RGB statistics for another number of channels; anything but a triple is returned unchanged."""
    if not isinstance(values, tuple) or len(values) != 3 or channels == 3:
        return values
    return sum(values) / 3 if channels == 1 else tuple(islice(cycle(values), channels))


def _normalisation(layers: Iterable[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Combined `(scale, offset)` of the leading `Rescaling` and `Normalization` layers; None if there are none."""
    found = None
    for layer in layers:
        kind = type(layer).__name__  # by name, because this module must not import Keras
        if kind == "Rescaling":
            factor, shift = np.asarray(layer.scale, "float64"), np.asarray(layer.offset, "float64")
        elif kind == "Normalization":
            factor = 1 / np.sqrt(np.asarray(layer.variance, "float64").ravel())
            shift = -np.asarray(layer.mean, "float64").ravel() * factor
        else:
            break
        found = (factor, shift) if found is None else (found[0] * factor, found[1] * factor + shift)
    return found


def _plain(values: np.ndarray) -> float | tuple[float, ...]:
    """A float, or a tuple of floats."""
    return float(values) if values.ndim == 0 else tuple(map(float, values))


def preprocess_input(x: Any, image_spec: ImageSpec | None = None) -> Any:
    """Normalise pixels for a network built with `include_preprocessing=False`.

    Networks of this package normalise their input, so without an `image_spec` the pixels are returned unchanged, as by
    `keras.applications.efficientnet.preprocess_input`.

    Args:
        x: Array or tensor of pixels in 0..255, channels last.
        image_spec: `ImageSpec`, whose mean and std are applied.

    Returns:
        `x`, or `(x - mean) / std` in float32.

    Raises:
        UserError: `image_spec` is no `ImageSpec`, such as the name of a network, or `x` is the path of a file.
    """
    if image_spec is None:
        return x
    instance_of("image_spec", image_spec, ImageSpec, _NO_SPEC)
    if x is None or isinstance(x, str | os.PathLike):
        raise UserError(
            f"x must be an array or a tensor of pixels, got {x!r}; read a file with inference.image_files.image."
        )
    scale, offset = image_spec.scale_and_offset()
    if isinstance(x, np.ndarray):
        x = x.astype("float32")
    else:
        from keras import ops  # casts tensors of the backend

        x = ops.cast(x, "float32")
    return x * np.asarray(scale, "float32") + np.asarray(offset, "float32")


def range_mismatch(images: Any, expected: tuple[float, float] = PIXELS) -> str | None:
    """Detect images whose values do not fit the range that a network expects.

    Dark, bright and uniform images pass; only values that are almost certainly in another range are reported.

    Args:
        images: Array of images of any shape.
        expected: Pair of floats, lowest and highest value that the network expects: `ImageSpec.input_range`.

    Returns:
        One line with the observed and the expected range and the cure; None if nothing is wrong.

    Example:

    >>> range_mismatch(images / 255)
    'The images lie in 0..1, the network normalises its input and expects 0..255: multiply by 255, or ...'
    """
    images = np.asarray(images)
    if not images.size:
        return None
    low, high = float(images.min()), float(images.max())
    seen = f"The images span {low:.4g} to {high:.4g}"
    if not np.isfinite([low, high]).all():
        return f"{seen}: they contain NaN or infinite values."
    if expected[1] <= _NORMALISED:
        if high <= _NORMALISED:
            return None
        wanted = f"values of {expected[0]:.2g} to {expected[1]:.2g}"
        return f"{seen}, the network does not normalise and expects {wanted}: apply preprocess_input(x, image_spec)."
    wanted = "the network normalises its input and expects 0..255"
    if low >= 0 and high <= 1 and float(images.mean(dtype="float64")) >= _DARK:
        return f"The images lie in 0..1, {wanted}: multiply by 255, or remove your own rescaling."
    if low < -_OVERSHOOT or (low < 0 and high <= _NORMALISED):
        return f"{seen}, {wanted}: remove your own normalisation."
    if high > PIXELS[1] + _OVERSHOOT:
        return f"{seen}, {wanted}: scale them to 8 bits."
    return None


def check_range(images: Any, expected: tuple[float, float] = PIXELS) -> bool:
    """Log the result of `range_mismatch` as a warning, if there is any; return whether there is."""
    problem = range_mismatch(images, expected)
    if problem:
        logger.warning(problem)
    return problem is not None
