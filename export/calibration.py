"""Calibration and verification images: loading from any source, resizing to the network's input, plausibility checks.

TensorFlow.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import read
from keras_effnet.datasets.listing.images import left_out_note, list_images, warn_of
from keras_effnet.datasets.splits import ImageDataset, Split
from keras_effnet.errors import UserError, instance_of, whole_number
from keras_effnet.pipeline.geometry import evaluation_image
from keras_effnet.preprocessing import ImageSpec

logger = logging.getLogger(__name__)

MIN_IMAGES = 20  # measured: more made no difference on pretrained Lite networks
_MIN_WHITE = 16  # no set of photographs has a lower maximum
_MIN_CORRELATION = 0.3  # between neighbouring pixels; photographs have 0.9 and more, noise has 0


Images: TypeAlias = str | Path | np.ndarray | tf.data.Dataset | Split | ImageDataset


@dataclass(frozen=True)
class _Originals:
    """Images of any size, decoded one after another: a photograph of 12 megapixels takes 36 MB.

    Args:
        most: Int, upper bound of their number.
        images: Iterator of arrays of shape `(height, width, channels)`.
    """

    most: int
    images: Iterator[np.ndarray]


def _from_folder(folder: Path, samples: int, seed: int) -> _Originals:
    listing = list_images(folder)
    paths = listing.images
    if not paths:
        raise UserError(f"{folder} contains no images to calibrate on.{left_out_note(listing.left_out, folder)}")
    warn_of(listing.left_out, folder)
    order = np.random.default_rng(seed).permutation(len(paths))
    return _Originals(min(samples, len(paths)), islice(_readable([paths[index] for index in order]), samples))


def _readable(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Read images, without those that cannot be read."""
    for path in paths:
        try:
            yield read(path)
        except UserError as error:
            logger.warning("Skipped: %s", error)


def _from_dataset(dataset: tf.data.Dataset, samples: int) -> _Originals:
    batches = (batch[0] if isinstance(batch, tuple) else batch for batch in dataset.as_numpy_iterator())
    images = list(islice(chain.from_iterable(batches), samples))  # their number is known at the end alone
    return _Originals(len(images), iter(images))


def _originals(source: Images, samples: int, seed: int) -> _Originals:
    if isinstance(source, ImageDataset):
        source = source.train
    if isinstance(source, Split):
        sample = source.sample(samples, seed)
        return _Originals(len(sample), sample.decoded())
    if isinstance(source, tf.data.Dataset):
        return _from_dataset(source, samples)
    if isinstance(source, (str, Path)):
        if not Path(source).is_dir():
            raise UserError(f"Calibration folder {source} does not exist.")
        return _from_folder(Path(source), samples, seed)
    try:
        source = np.asarray(source)
    except ValueError:  # a list of images of different sizes
        source = np.empty(())
    if source.ndim < 1 or source.dtype.kind not in "buif":
        raise UserError("Images must be a folder, an array of pixels, a tf.data.Dataset, a Split or an ImageDataset.")
    return _Originals(min(samples, len(source)), iter(source[:samples]))


def _check_found(count: int) -> None:
    if not count:
        raise UserError("No images to calibrate on: the source is empty.")


def original_images(source: Images, samples: int, seed: int = 0) -> list[np.ndarray]:
    """Load images as they are, of any size; the arguments are those of `load_images`.

    Raises:
        UserError: The source has no images, or is none.
    """
    images = list(_originals(source, samples, seed).images)
    _check_found(len(images))
    return images


def load_images(source: Images, image_spec: ImageSpec, samples: int = 100, seed: int = 0) -> np.ndarray:
    """Load images at the network's input size.

    Args:
        source: A folder (class folders or not), a `tf.data.Dataset` of batches with or without labels, an array of
            shape `(N, height, width, 3)`, or an `ImageDataset` or `Split`. Pixels in 0..255.
        image_spec: `ImageSpec` of the network.
        samples: Int, number of images; a seeded random draw from a folder or split.
        seed: Int.

    Returns:
        A `float32` array of shape `(samples, size, size, channels)`, values 0..255; a view of a source that is one.

    Raises:
        UserError: The source has no images, or arrays of another shape.
    """
    instance_of("image_spec", image_spec, ImageSpec)
    samples = whole_number("samples", samples)
    shape = (image_spec.size, image_spec.size, image_spec.channels)
    if isinstance(source, np.ndarray) and source.dtype == np.float32 and source.shape[1:] == shape and len(source):
        return source[:samples]
    # Images of a pipeline or array at the network's size are already cropped; files never are.
    prepared = not isinstance(source, (str, Path, Split, ImageDataset))
    if not prepared:
        image_spec.check_rgb()
    found = _originals(source, samples, seed)
    ready, count = np.empty((found.most, *shape), "float32"), 0
    for image in found.images:
        if np.ndim(image) != 3 or image.shape[2] != image_spec.channels:
            batch = " Is that one image, or a dataset without .batch()?" if np.ndim(image) == 2 else ""
            expected = f"(height, width, {image_spec.channels})"
            raise UserError(f"Images must have shape {expected}, got {[np.shape(image)]}.{batch}")
        ready[count] = image if prepared and image.shape == shape else evaluation_image(image, image_spec).numpy()
        count += 1
    _check_found(count)
    return ready[:count]


def neighbour_correlation(images: np.ndarray) -> float:
    """Correlation of each pixel with its right neighbour: near 1 in photographs, near 0 in noise."""
    means = [[side.mean(dtype="float64")] for side in (images[:, :, :-1], images[:, :, 1:])]
    products = np.zeros((2, 2))
    for image in images:  # `np.corrcoef` of all takes 40 bytes for each value
        pair = np.stack([image[:, :-1].ravel(), image[:, 1:].ravel()]) - means
        products += pair @ pair.T
    spread = np.sqrt(products[0, 0] * products[1, 1])
    return float(products[0, 1] / spread) if spread else 1.0


def check_images(images: np.ndarray) -> None:
    """Refuse implausible calibration images.

    Ranges calibrated on such images ruin the quantized network, and no later step can detect the cause.

    Args:
        images: Array of shape `(N, height, width, channels)`.

    Raises:
        UserError: The images are constant, out of range, noise, or one pixel wide.
    """
    if images.shape[2] < 2:
        raise UserError(
            "Calibration images are 1 pixel wide, and ranges need a black and a white pixel in a row: use a "
            "precision that needs no calibration, such as float16, or a network for larger images."
        )
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        raise UserError("Calibration images contain NaN or infinite values.")
    if low == high:
        raise UserError(f"Every calibration pixel is {low:g}: these are not images.")
    if low < 0 or high > 255:
        raise UserError(f"Calibration pixels span {low:g} to {high:g}; the network normalises itself and takes 0..255.")
    if high <= _MIN_WHITE:
        raise UserError(f"Calibration pixels span {low:g} to {high:g}: give 0..255, not 0..1 (multiply by 255).")
    if (correlation := neighbour_correlation(images)) < _MIN_CORRELATION:
        raise UserError(
            f"The calibration images look like noise (neighbouring pixels correlate by {correlation:.2f}, "
            "photographs by 0.9): calibrate on images like those the network will see."
        )


def fingerprint(images: np.ndarray) -> dict[str, object]:
    """Identify a set of calibration images by their number and the sha256 of their rounded pixels."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.round(image).astype("uint8").tobytes())
    return {"images": len(images), "sha256": digest.hexdigest()}


def occurring_in(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bool array: for each image, whether the same pixels occur among `others`."""
    known = {hashlib.sha256(image.tobytes()).digest() for image in others}
    return np.array([hashlib.sha256(image.tobytes()).digest() in known for image in images], bool)


def span_input_range(images: np.ndarray) -> np.ndarray:
    """Copy an image, or several, with one black and one white pixel in the corner of each.

    The input's quantization then covers exactly 0..255, so a uint8 model takes raw bytes unchanged.
    """
    images = images.copy()
    images[..., 0, 0, :], images[..., 0, 1, :] = 0.0, 255.0
    return images


def synthetic_images(shape: tuple[int, int, int], count: int = 16) -> np.ndarray:
    """Smooth colour gradients, sufficient to compare float arithmetic when no images were given."""
    rng = np.random.default_rng(0)
    height, width, channels = shape
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    images = np.empty((count, *shape), "float32")
    for image in images:
        waves = rows * rng.uniform(1, 9, channels) + columns * rng.uniform(1, 9, channels) + rng.uniform(0, 6, channels)
        image[...] = (np.sin(waves) + 1) * 127.5
    return images
