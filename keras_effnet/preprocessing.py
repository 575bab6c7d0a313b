"""The one normalisation contract: model, data, calibration and export all read the same `ImageSpec`.

Numpy only; imports `architecture` and `errors`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from keras_effnet.architecture import IMAGENET_MEAN, IMAGENET_STD, ArchitectureSpec
from keras_effnet.errors import UserError


@dataclass(frozen=True)
class ImageSpec:
    """What a network expects of a picture, from the file to its first convolution.

    Pixels arrive in 0..255, RGB. They are cropped and resized as said here, then normalised as
    `(pixel - mean) / std`, inside the network unless it was built with `include_preprocessing=False`.

    Args:
        size: Int, side of the square input in pixels.
        mean: Float or one float per channel, in 0..255.
        std: Float or one float per channel, in 0..255.
        crop: Float in (0, 1], side of the central square that evaluation keeps, as a share of the shorter side.
            ImageNet models use `size / (size + 32)`.
        channels: Int.
    """

    size: int
    mean: float | tuple[float, ...] = IMAGENET_MEAN
    std: float | tuple[float, ...] = IMAGENET_STD
    crop: float = 1.0
    channels: int = 3

    def __post_init__(self):
        if not 0 < self.crop <= 1:
            raise UserError(f"crop must lie in (0, 1], got {self.crop}.")
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
    def of(cls, spec: ArchitectureSpec, size: int | None = None, crop: float = 1.0, channels: int = 3) -> ImageSpec:
        """The contract of an architecture, at its own input size unless another is given."""
        return cls(size or spec.image_size, spec.pixel_mean, spec.pixel_std, crop, channels)

    @classmethod
    def raw(cls, input_shape: tuple[int, ...], crop: float = 1.0) -> ImageSpec:
        """The contract of a network that normalises pixels itself, read off its `(batch, height, width, channels)`."""
        return cls(int(input_shape[1]), 0.0, 1.0, crop, int(input_shape[3]))

    def scale_and_offset(self) -> tuple[float | list[float], float | list[float]]:
        """`(scale, offset)` such that `pixel * scale + offset` equals `(pixel - mean) / std`, as plain floats."""
        scale = 1.0 / np.asarray(self.std, dtype="float64")
        offset = -np.asarray(self.mean, dtype="float64") * scale
        return scale.tolist(), np.broadcast_to(offset, scale.shape).tolist() if scale.ndim else offset.tolist()

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> ImageSpec:
        return cls(**json.loads(Path(path).read_text()))


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


def decode_predictions(preds, top: int = 5, class_names: list[str] | tuple[str, ...] | None = None):
    """Names the most probable classes of each picture.

    Args:
        preds: Array of shape `(N, classes)`, probabilities.
        top: Int, how many classes a picture.
        class_names: One name a class, in the order of training. Without it `preds` must have ImageNet's 1000 classes,
            whose names Keras fetches once.

    Returns:
        A list for each picture of `(name, probability)`, best first; for ImageNet `(wnid, name, probability)` as
        `keras.applications` does.

    Raises:
        UserError: The number of classes and of names differ.

    Example:

    >>> decode_predictions(np.array([[0.1, 0.9]]), top=1, class_names=["cat", "dog"])
    [[('dog', 0.9)]]
    """
    preds = np.asarray(preds)
    if preds.ndim != 2:
        raise UserError(f"preds must have shape (N, classes), got {preds.shape}.")
    if class_names is None:
        if preds.shape[1] != 1000:
            raise UserError(f"preds has {preds.shape[1]} classes, not ImageNet's 1000: pass class_names.")
        from keras.applications.imagenet_utils import decode_predictions as decode_imagenet

        return decode_imagenet(preds, top=top)
    if preds.shape[1] != len(class_names):
        raise UserError(f"preds has {preds.shape[1]} classes but class_names has {len(class_names)}.")
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [[(class_names[i], float(row[i])) for i in order] for row, order in zip(preds, best, strict=True)]
