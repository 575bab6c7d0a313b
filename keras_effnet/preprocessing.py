"""The one normalisation contract: model, data, calibration and export all read the same `ImageSpec`.

Pixels that do not fit it are noticed here, and predictions get their names here. Numpy only; imports `architecture`,
`baselines`, `imagenet` and `errors`.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from keras_effnet.architecture.baselines import EFFICIENTNET_B0, SPECS
from keras_effnet.architecture.specs import IMAGENET_MEAN, IMAGENET_STD, ArchitectureSpec
from keras_effnet.errors import UserError, first_line, one_of

logger = logging.getLogger(__name__)

INTERPOLATIONS = ("bilinear", "bicubic")
PIXELS = (0.0, 255.0)

# Bounds of `range_mismatch`, set so that odd but sound images pass.
_OVERSHOOT = 64.0  # bicubic resizing leaves 0..255 by less where nobody clips it
_NORMALISED = 16.0  # no usual normalisation reaches this value, nearly every image in 0..255 does
_DARK = 0.02  # below this mean, images in 0..1 and black frames in 0..255 look alike


@dataclass(frozen=True)
class ImageSpec:
    """What a network expects of an image, from the file to its first convolution.

    Pixels arrive in 0..255, RGB. They are cropped and resized as said here, then normalised as
    `(pixel - mean) / std`, inside the network or before it.

    Args:
        size: Int, side of the square input in pixels.
        mean: Float or one float per channel, in 0..255.
        std: Float or one float per channel, in 0..255.
        crop: Float in (0, 1], side of the central square that evaluation keeps, as a share of the shorter side.
            ImageNet models use `size / (size + 32)`.
        channels: Int.
        interpolation: `"bilinear"`, which a browser's canvas and phones offer, or `"bicubic"`, by which the published
            accuracies were measured.
        in_network: Bool, whether the network normalises. False where it was built with `include_preprocessing=False`
            and expects what `preprocess_input` gives.
    """

    size: int
    mean: float | tuple[float, ...] = IMAGENET_MEAN
    std: float | tuple[float, ...] = IMAGENET_STD
    crop: float = 1.0
    channels: int = 3
    interpolation: str = "bilinear"
    in_network: bool = True

    def __post_init__(self):
        if not 0 < self.crop <= 1:
            raise UserError(f"crop must lie in (0, 1], got {self.crop}.")
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)):
                object.__setattr__(self, name, tuple(value))  # lists from JSON; keeps the spec hashable
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
        """The contract of an architecture, at its own input size unless another is given.

        Its statistics are of RGB. One channel takes their mean; more repeat them, R, G, B, R and so on, as the
        published kernels of the stem are repeated.
        """
        mean, std = (_for_channels(values, channels) for values in (spec.pixel_mean, spec.pixel_std))
        return cls(size or spec.image_size, mean, std, crop, channels, interpolation)

    @classmethod
    def of_model(cls, model, size: int | None = None, crop: float = 1.0) -> ImageSpec:
        """The contract of a built Keras model, read off its input and the normalising layers that follow it.

        A network of this package that begins with its stem was built with `include_preprocessing=False`: it expects
        normalised pixels, by the statistics of the network that its name begins with, else ImageNet's. Any other model
        without such layers takes pixels as they are: mean 0, std 1.

        Args:
            model: Functional Keras model with one image input.
            size: Int, side of the images in pixels; needed where the model takes any size.
            crop: Float in (0, 1].

        Raises:
            UserError: The model takes any size and none is given.
        """
        size = size or model.input_shape[1]
        if size is None:
            raise UserError(f"{model.name} takes images of any size: say which, size=224 for instance.")
        channels = model.input_shape[-1]
        layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
        scale, offset = _normalisation(layers)
        if scale is not None:
            return cls(size, _plain(-offset / scale), _plain(1 / scale), crop, channels)
        if not layers[0].name.startswith("stem_"):
            return cls.raw((None, size, size, channels), crop)
        spec = next((spec for spec in SPECS.values() if model.name.startswith(spec.name)), EFFICIENTNET_B0)
        return replace(cls.of(spec, size, crop, channels), in_network=False)

    @classmethod
    def raw(cls, input_shape: tuple[int, ...], crop: float = 1.0) -> ImageSpec:
        """The contract of what takes pixels as they are, where the input's shape is all that is known: a `.tflite`."""
        return cls(int(input_shape[1]), 0.0, 1.0, crop, int(input_shape[3]))

    @property
    def input_range(self) -> tuple[float, float]:
        """Lowest and highest value that the network itself expects: 0 and 255, or what they become normalised."""
        if self.in_network:
            return PIXELS
        low, high = (((value - np.asarray(self.mean)) / np.asarray(self.std)) for value in PIXELS)
        return float(low.min()), float(high.max())

    def scale_and_offset(self) -> tuple[float | list[float], float | list[float]]:
        """`(scale, offset)` such that `pixel * scale + offset` equals `(pixel - mean) / std`, as plain floats."""
        scale = 1.0 / np.asarray(self.std, dtype="float64")
        offset = -np.asarray(self.mean, dtype="float64") * scale
        return scale.tolist(), np.broadcast_to(offset, scale.shape).tolist() if scale.ndim else offset.tolist()

    def save(self, path: str | Path) -> None:
        """Writes the spec as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> ImageSpec:
        """Reads what `save` wrote; fields that an older version did not know have their defaults.

        Raises:
            UserError: The file is damaged, or holds something else.
        """
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is not what ImageSpec.save writes: {first_line(error)}") from error


def _for_channels(values: float | tuple[float, ...], channels: int) -> float | tuple[float, ...]:
    """Statistics of RGB for another channel count; what is no triple stays as it is."""
    if not isinstance(values, tuple) or len(values) != 3 or channels == 3:
        return values
    return sum(values) / 3 if channels == 1 else tuple(islice(cycle(values), channels))


def _normalisation(layers) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`(scale, offset)` of all `Rescaling` and `Normalization` layers that come first; None without any."""
    scale = offset = None
    for layer in layers:
        kind = type(layer).__name__  # by name: this module must not wait for Keras
        if kind == "Rescaling":
            factor, shift = np.asarray(layer.scale, "float64"), np.asarray(layer.offset, "float64")
        elif kind == "Normalization":
            factor = 1 / np.sqrt(np.asarray(layer.variance, "float64").ravel())
            shift = -np.asarray(layer.mean, "float64").ravel() * factor
        else:
            break
        scale, offset = (factor, shift) if scale is None else (scale * factor, offset * factor + shift)
    return scale, offset


def _plain(values: np.ndarray) -> float | tuple[float, ...]:
    """A float, or a tuple of floats."""
    return float(values) if values.ndim == 0 else tuple(map(float, values))


def preprocess_input(x, image_spec: ImageSpec | None = None):
    """Normalises pixels for a network built with `include_preprocessing=False`.

    Networks of this package normalise in the graph, so without an `image_spec` the pixels come back as they are: code
    that calls `preprocess_input` of `keras.applications.efficientnet`, which does nothing either, keeps working.

    Args:
        x: Array or tensor of pixels in 0..255, channels last.
        image_spec: `ImageSpec`, whose mean and std are applied.

    Returns:
        `x`, or `(x - mean) / std` in float32.
    """
    if image_spec is None:
        return x
    scale, offset = image_spec.scale_and_offset()
    if isinstance(x, np.ndarray):
        x = x.astype("float32")
    else:
        from keras import ops  # only a tensor's own library can cast it

        x = ops.cast(x, "float32")
    return x * np.asarray(scale, "float32") + np.asarray(offset, "float32")


def range_mismatch(images, expected: tuple[float, float] = PIXELS) -> str | None:
    """Says what is wrong with the range of some images, or None.

    Dark, bright and flat images pass: only what can hardly be images in the expected range is named.

    Args:
        images: Array of images of any shape.
        expected: Pair of floats, lowest and highest value that the network expects: `ImageSpec.input_range`.

    Returns:
        One line that names what was seen, what is expected and the cure; None where nothing is wrong.

    Example:

    >>> range_mismatch(images / 255)
    'The images lie in 0..1, the network normalises by itself and takes 0..255: multiply by 255, or ...'
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
    wanted = "the network normalises by itself and takes 0..255"
    if low >= 0 and high <= 1 and float(images.mean(dtype="float64")) >= _DARK:
        return f"The images lie in 0..1, {wanted}: multiply by 255, or leave out your own rescaling."
    if low < -_OVERSHOOT or (low < 0 and high <= _NORMALISED):
        return f"{seen}, {wanted}: leave out your own normalisation."
    if high > PIXELS[1] + _OVERSHOOT:
        return f"{seen}, {wanted}: scale them to 8 bits."
    return None


def check_range(images, expected: tuple[float, float] = PIXELS) -> None:
    """Logs a warning where `range_mismatch` finds one."""
    if problem := range_mismatch(images, expected):
        logger.warning(problem)
