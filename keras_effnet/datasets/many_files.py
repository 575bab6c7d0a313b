"""Decoding of many image files, in order and at little cost per file; detection of those that fail. TensorFlow.

A step of Python per image costs more than decoding a small one, so small images cross over in batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import BadFile, collect, decode, read_bytes
from keras_effnet.errors import tensorflow_reason

_CHUNK_FILES, _CHUNK_BYTES = 8192, 256 << 20  # files per pipeline: starting one takes a tenth of a second
_GROUP = 64  # files that a thread reads in turn
_BATCH = 32
_SMALL = 16 << 10  # bytes of a file whose pixels fit into a batch: some 30 kB, 25 MB at the very most
_CORES = os.cpu_count() or 1
_Decoded = tuple[bytes, np.ndarray]


# Traced once and not again for every chunk.
@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _decode_file(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    contents = tf.io.read_file(path)
    return contents, decode(contents)


def decode_files(paths: Sequence[str]) -> Iterator[_Decoded | BadFile]:
    """Read and decode many files in parallel, in order; yields as `decoding.decode_all`."""
    for chunk, checked in _checked(paths):
        sizes = [(path, size) for path, size in zip(chunk, checked, strict=True) if isinstance(size, int)]
        small = _in_batches([path for path, size in sizes if size <= _SMALL], _flat_pixels, _unflatten)
        large = _one_by_one([path for path, size in sizes if size > _SMALL])
        for found in checked:
            yield found if isinstance(found, BadFile) else next(small if found <= _SMALL else large)


def find_bad_files(paths: Sequence[str], progress: Callable[[Iterable], Iterable] = iter) -> list[BadFile]:
    """Decode every file with the decoder that training uses, and list the files that fail.

    All other files can be decoded by `decode` and, in any window, by `decode_window`.

    Args:
        paths: Paths of image files.
        progress: Wraps the iteration, for a progress bar.
    """
    return [found for found in progress(_attempts(paths)) if isinstance(found, BadFile)]


def _attempts(paths: Sequence[str]) -> Iterator[Any]:
    """Yield a `BadFile` for every file that cannot be decoded and something else for the others, in order."""
    for chunk, checked in _checked(paths):
        sound = [path for path, found in zip(chunk, checked, strict=True) if isinstance(found, int)]
        decoded = _in_batches(sound, lambda _, pixels: (tf.size(pixels),), lambda sizes: sizes.numpy())
        for found in checked:
            yield found if isinstance(found, BadFile) else next(decoded)


def _checked(paths: Sequence[str]) -> Iterator[tuple[list[str], list[BadFile | int]]]:
    """Yield chunks of the paths, with the size in bytes of each file or why it must not be opened by TensorFlow."""
    groups = [[str(path) for path in paths[first : first + _GROUP]] for first in range(0, len(paths), _GROUP)]
    chunk: list[str] = []
    checked: list[BadFile | int] = []
    total = 0
    with ThreadPoolExecutor() as pool:
        for group, sizes in zip(groups, pool.map(_sizes_or_errors, groups), strict=True):
            chunk += group
            checked += sizes
            total += sum(size for size in sizes if isinstance(size, int))
            if len(chunk) >= _CHUNK_FILES or total >= _CHUNK_BYTES or group is groups[-1]:
                yield chunk, checked
                chunk, checked, total = [], [], 0


def _sizes_or_errors(paths: Sequence[str]) -> list[BadFile | int]:
    def check(path: str) -> BadFile | int:
        try:
            return len(read_bytes(path))
        except (ValueError, OSError) as error:
            return BadFile(path, tensorflow_reason(error))

    return [check(path) for path in paths]


def _path_dataset(paths: Sequence[str]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(tf.constant([os.fsencode(path) for path in paths], tf.string))


def _one_by_one(paths: Sequence[str]) -> Iterator[_Decoded | BadFile]:
    yield from collect(_path_dataset(paths).map(_decode_file, num_parallel_calls=_CORES), paths)


def _in_batches(paths: Sequence[str], outputs: Callable, unpack: Callable) -> Iterator[Any]:
    """Decode files in batches, in order; a file that fails is decoded again, alone, for the reason.

    Args:
        paths: Paths.
        outputs: Function from the bytes and pixels of an image to a tuple of the tensors that are needed.
        unpack: Function from batches of these tensors to a sequence with an item for each image.

    Yields:
        An item of `unpack`, or a `BadFile`, for each path.
    """
    if not paths:
        return
    numbered = _path_dataset(paths).enumerate()
    data = numbered.map(lambda place, path: (place, *outputs(*_decode_file(path))), num_parallel_calls=_CORES)
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = _CORES
    done = 0
    for places, *batch in data.ignore_errors().ragged_batch(_BATCH).with_options(options):
        found = dict(zip(places.numpy().tolist(), unpack(*batch), strict=True))
        stop = max(found) + 1
        yield from _completed(paths[done:stop], done, found)
        done = stop
    yield from _completed(paths[done:], done, {})


def _completed(paths: Sequence[str], first: int, found: dict[int, Any]) -> Iterator[Any]:
    """Yield what was found for the places from `first` on; decode the other files one by one."""
    places = range(first, first + len(paths))
    missing = [path for place, path in zip(places, paths, strict=True) if place not in found]
    others = _one_by_one(missing)
    for place in places:
        yield found[place] if place in found else next(others)


def _flat_pixels(contents: tf.Tensor, pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
    return contents, tf.shape(pixels), tf.reshape(pixels, [-1])


def _unflatten(contents: tf.Tensor, shapes: tf.Tensor, pixels: tf.RaggedTensor) -> list[_Decoded]:
    values, ends = pixels.flat_values.numpy(), pixels.row_splits.numpy()[1:-1]
    flat = np.split(values, ends)
    return [
        (item, part.reshape(shape)) for item, part, shape in zip(contents.numpy(), flat, shapes.numpy(), strict=True)
    ]
