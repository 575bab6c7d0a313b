"""Image files as batches at a network's size: what `predict`, `explain` and `eval` read. TensorFlow."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import decode, read
from keras_effnet.datasets.listing.images import left_out_note, list_images, warn_of
from keras_effnet.errors import UserError, instance_of
from keras_effnet.pipeline.geometry import evaluation_image
from keras_effnet.preprocessing import ImageSpec

logger = logging.getLogger(__name__)


def _check_channels(image_spec: ImageSpec) -> None:
    instance_of("image_spec", image_spec, ImageSpec)
    image_spec.check_rgb()


def image(path: str | Path, image_spec: ImageSpec) -> np.ndarray:
    """Read an image file at a network's size, as a batch of shape `(1, size, size, 3)`.

    Args:
        path: Path of the file.
        image_spec: `ImageSpec` of the network.

    Returns:
        Float array, values 0..255.

    Raises:
        UserError: The file cannot be read, or the network does not have 3 input channels.
    """
    _check_channels(image_spec)
    return evaluation_image(read(path), image_spec).numpy()[None]


def image_paths(items: Sequence[str | Path]) -> list[str]:
    """List image files: the given files and all image files below the given folders, without duplicates.

    Raises:
        UserError: There are none.
    """
    found: list[str] = []
    for item in items:
        if not Path(item).is_dir():
            found.append(str(item))
            continue
        listing = list_images(item)
        if not listing.images and len(items) == 1:
            raise UserError(f"No images in {item}.{left_out_note(listing.left_out, item)}")
        warn_of(listing.left_out, item)
        found += listing.images
    if not found:
        raise UserError(f"No images in {', '.join(map(str, items))}.")
    return list(dict.fromkeys(found))


def image_batches(
    paths: Sequence[str], image_spec: ImageSpec, batch_size: int, progress: Callable[[Iterable], Iterable] = iter
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Read image files in batches, decoding the next batch while the current one is in use.

    Files that cannot be read are skipped; a warning names each of them at the end.

    Args:
        paths: Paths of files.
        image_spec: `ImageSpec` of the network.
        batch_size: Int.
        progress: Function that wraps the iterable of batches, for a progress bar.

    Yields:
        Pairs of the paths and the images, an array of shape `(batch, size, size, 3)`, values 0..255.

    Raises:
        UserError: None of the files can be read, or the network does not have 3 input channels.
    """
    _check_channels(image_spec)

    def load(number, path):
        return number, evaluation_image(decode(tf.io.read_file(path)), image_spec)

    # Reading a pipe might never end. File names are bytes and need not be valid text.
    files = np.flatnonzero([Path(path).is_file() for path in paths])
    names = tf.constant([os.fsencode(paths[number]) for number in files.tolist()], tf.string)
    data = tf.data.Dataset.from_tensor_slices((files, names))
    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    readable_files = np.zeros(len(paths), bool)
    for numbers, pixels in progress(data.batch(batch_size).prefetch(1).as_numpy_iterator()):
        readable_files[numbers] = True
        yield [paths[number] for number in numbers.tolist()], pixels

    failures = [_failure(paths[number]) for number in np.flatnonzero(~readable_files).tolist()]
    if len(failures) == len(paths):
        raise failures[0]
    for failure in failures:
        logger.warning("skipped: %s", failure)


def _failure(path: str) -> UserError:
    """Reason why an image was skipped; the pipeline drops it without one."""
    try:
        read(path)
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{path} cannot be read: {error.strerror}.")
    return UserError(f"{path} could not be read during prediction.")


def each_image(
    items: Sequence[str | Path], image_spec: ImageSpec, progress: Callable[[Iterable], Iterable] = iter
) -> Iterator[tuple[str, np.ndarray]]:
    """Read images one at a time, from files and from all files below folders.

    Args:
        items: Paths of files and folders.
        image_spec: `ImageSpec` of the network.
        progress: Function that wraps the iterable of images, for a progress bar.

    Yields:
        Pairs of the path and the image, an array of shape `(1, size, size, 3)`, values 0..255.

    Raises:
        UserError: As `image_batches`.
    """
    for (path,), pixels in image_batches(image_paths(items), image_spec, 1, progress):
        yield path, pixels
