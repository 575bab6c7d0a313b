"""Pictures to calibrate and verify with: from wherever they come, at the network's size, and refused if they cannot be.

Imports `pipeline`, `datasets`, `images`, `preprocessing`, `errors`.
"""

from __future__ import annotations

import hashlib
import logging
from itertools import chain
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import list_pictures, read
from keras_effnet.datasets.loading import ImageDataset, Split
from keras_effnet.errors import UserError
from keras_effnet.pipeline.geometry import evaluation_image
from keras_effnet.preprocessing import ImageSpec

logger = logging.getLogger(__name__)

MIN_PICTURES = 20  # measured: more changed nothing on pretrained Lite networks
_MIN_WHITE = 16  # no set of photographs is as dark as this
_MIN_CORRELATION = 0.3  # between neighbouring pixels; photographs have 0.9 and more, noise has 0


Pictures = str | Path | np.ndarray | tf.data.Dataset | Split | ImageDataset


def _from_folder(folder: Path, samples: int, seed: int) -> list[np.ndarray]:
    paths = list_pictures(folder)
    if not paths:
        raise UserError(f"{folder} holds no pictures to calibrate with.")
    pictures = []
    for index in np.random.default_rng(seed).permutation(len(paths)):
        if len(pictures) == samples:
            break
        try:
            pictures.append(read(paths[index]))
        except UserError as error:
            logger.warning("Skipped: %s", error)
    return pictures


def _from_dataset(dataset: tf.data.Dataset, samples: int) -> list[np.ndarray]:
    batches = (batch[0] if isinstance(batch, tuple) else batch for batch in dataset.as_numpy_iterator())
    pictures = chain.from_iterable(batches)
    return [picture for picture, _ in zip(pictures, range(samples), strict=False)]


def load_pictures(source: Pictures, image_spec: ImageSpec, samples: int = 100, seed: int = 0) -> np.ndarray:
    """Pictures at the network's size.

    Args:
        source: A folder (class folders or not), a `tf.data.Dataset` of batches with or without labels, an array of
            shape `(N, height, width, 3)`, or an `ImageDataset` or `Split`. Pixels in 0..255.
        image_spec: `ImageSpec` of the network.
        samples: Int, how many to take; drawn at random, seeded, from a folder or split.
        seed: Int.

    Returns:
        A `float32` array of shape `(samples, size, size, channels)`, values 0..255.

    Raises:
        UserError: No pictures there, or not pictures.
    """
    if isinstance(source, ImageDataset):
        source = source.train
    if isinstance(source, Split):
        pictures = list(source.sample(samples, seed).pictures())
    elif isinstance(source, tf.data.Dataset):
        pictures = _from_dataset(source, samples)
    elif isinstance(source, (str, Path)):
        if not Path(source).is_dir():
            raise UserError(f"Calibration folder {source} does not exist.")
        pictures = _from_folder(Path(source), samples, seed)
    else:
        source = np.asarray(source)
        pictures = list(source[:samples])
    if not pictures:
        raise UserError("No pictures to calibrate with: the source is empty.")
    if any(np.ndim(picture) != 3 or picture.shape[2] != image_spec.channels for picture in pictures):
        shapes = sorted({np.shape(picture) for picture in pictures})[:3]
        raise UserError(f"Pictures must have shape (height, width, {image_spec.channels}), got {shapes}.")
    side = (image_spec.size, image_spec.size)
    # A pipeline or an array at the network's size was cropped by whoever made it; files never were.
    prepared = isinstance(source, (tf.data.Dataset, np.ndarray))
    ready = [p if prepared and p.shape[:2] == side else evaluation_image(p, image_spec).numpy() for p in pictures]
    return np.stack(ready).astype("float32")


def neighbour_correlation(pictures: np.ndarray) -> float:
    """Correlation of each pixel with the one to its right: near 1 in photographs, near 0 in noise."""
    left, right = pictures[:, :, :-1].ravel(), pictures[:, :, 1:].ravel()
    return float(np.corrcoef(left, right)[0, 1]) if left.std() and right.std() else 1.0


def check_pictures(pictures: np.ndarray) -> None:
    """Refuses calibration pictures that cannot be right.

    Ranges calibrated on such pictures quantize the network to something else, and nothing later says so.

    Args:
        pictures: Array of shape `(N, height, width, channels)`.

    Raises:
        UserError: Constant, in the wrong range, or noise.
    """
    low, high = float(pictures.min()), float(pictures.max())
    if not np.isfinite([low, high]).all():
        raise UserError("Calibration pictures contain NaN or infinite values.")
    if low == high:
        raise UserError(f"Every calibration pixel is {low:g}: these are not pictures.")
    if low < 0 or high > 255:
        raise UserError(f"Calibration pixels span {low:g} to {high:g}; the network normalises itself and takes 0..255.")
    if high <= _MIN_WHITE:
        raise UserError(f"Calibration pixels span {low:g} to {high:g}: give 0..255, not 0..1 (multiply by 255).")
    if (correlation := neighbour_correlation(pictures)) < _MIN_CORRELATION:
        raise UserError(
            f"The calibration pictures look like noise (neighbouring pixels correlate by {correlation:.2f}, "
            "photographs by 0.9): calibrate on pictures like those the network will see."
        )


def fingerprint(pictures: np.ndarray) -> dict[str, object]:
    """What tells one set of calibration pictures from another: their number, and the sha256 of their rounded pixels."""
    pixels = np.round(pictures).astype("uint8")
    return {"pictures": len(pictures), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}


def span_input_range(pictures: np.ndarray) -> np.ndarray:
    """The same pictures, with one black and one white pixel in the corner of each.

    The input's quantization then covers exactly 0..255, so raw bytes go into a uint8 model as they are.
    """
    pictures = pictures.copy()
    pictures[:, 0, 0, :], pictures[:, 0, 1, :] = 0.0, 255.0
    return pictures


def synthetic_pictures(shape: tuple[int, int, int], count: int = 16) -> np.ndarray:
    """Smooth colour gradients: enough to compare float arithmetic on where no picture was given."""
    rng = np.random.default_rng(0)
    height, width, channels = shape
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = [
        np.sin(rows * rng.uniform(1, 9, channels) + columns * rng.uniform(1, 9, channels) + rng.uniform(0, 6, channels))
        for _ in range(count)
    ]
    return ((np.stack(waves) + 1) * 127.5).astype("float32")
