"""Caching of decoded images between epochs, in memory or on disk. TensorFlow."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_effnet.config.train_config import CACHES
from keras_effnet.datasets.decoding import decode
from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.datasets.labels.masks import Masks, read_mask, whitened
from keras_effnet.datasets.splits import Encoded, Split
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.files import make_folder
from keras_effnet.system.machine import host_bytes

# For functions of `Dataset.map`: they have no statement that AutoGraph would have to convert, which takes it seconds.
without_autograph = tf.autograph.experimental.do_not_convert

_SHUFFLE_BYTES = 256 << 20  # size of the shuffle buffer of a stream, which is already shuffled on disk
_SAMPLE_SIZE = 16  # images used to estimate the total size


def elements(split: Split) -> tf.data.Dataset:
    """Return a `tf.data.Dataset` of `(image, label)`; an image or mask is pixels, a file path or encoded bytes."""
    labels = _label_elements(split.labels)
    if isinstance(split.images, Encoded):
        return tf.data.Dataset.zip((split.images.read(), tf.data.Dataset.from_tensor_slices(labels)))
    # File names are bytes and need not be valid text.
    images = [os.fsencode(path) for path in split.images] if isinstance(split.images, tuple) else split.images
    return tf.data.Dataset.from_tensor_slices((images, labels))


def _label_elements(labels: Any) -> Any:
    if isinstance(labels, Boxes):
        return box_rows(labels)
    return _mask_elements(labels) if isinstance(labels, Masks) else labels


def box_rows(labels: Boxes) -> tf.RaggedTensor:
    """Boxes of all images of a split, of shape `(N, None, 6)`: y0, x0, y1, x1 in pixels, class, crowd."""
    rows = np.concatenate([labels.boxes, labels.classes[:, None], labels.crowd[:, None]], axis=1, dtype="float32")
    return tf.RaggedTensor.from_row_splits(rows, labels.offsets)


def _mask_elements(masks: Masks) -> np.ndarray | list[bytes]:
    if isinstance(masks.source, np.ndarray):
        return whitened(masks.source) if masks.white else masks.source
    return [os.fsencode(each) if isinstance(each, str) else each for each in masks.source]


def decoded_label(label: tf.Tensor, split: Split) -> tf.Tensor:
    """Label of an element of `elements`; a mask as `uint8` of shape `(height, width)`."""
    masks = split.labels
    if not isinstance(masks, Masks) or label.dtype != tf.string:
        return label
    files = bool(masks.paths)

    def read(source: bytes) -> np.ndarray:
        return read_mask(os.fsdecode(source) if files else source, masks.white)

    return tf.ensure_shape(tf.numpy_function(read, [label], tf.uint8), (None, None))


def contents(image: tf.Tensor, split: Split) -> tf.Tensor:
    """Encoded bytes of an element of `elements`, read from its file if it is a path."""
    return tf.io.read_file(image) if isinstance(split.images, tuple) else image


def in_memory(split: Split) -> bool:
    """Whether the images of a split are decoded arrays."""
    return isinstance(split.images, np.ndarray)


def decoded_bytes(split: Split) -> int:
    """Size of a split when decoded; for files and streams estimated from a sample of 16 images."""
    if isinstance(split.images, np.ndarray):
        return split.images.nbytes
    sample = split.sample(_SAMPLE_SIZE)
    sizes = [decode(contents(image, sample)).shape.num_elements() for image, _ in elements(sample)]
    return int(np.mean(sizes) * len(split))


@dataclass(frozen=True)
class Cache:
    """Cache of decoded images between epochs.

    Args:
        kind: String, `"memory"`, `"disk"` or `"none"`.
        reason: String, a sentence that explains the choice.
        folder: Path for a cache on disk; required for `"disk"`.
    """

    kind: str
    reason: str = ""
    folder: Path | None = None


def _free_disk(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


def choose_cache(split: Split, kind: str = "auto", folder: str | Path | None = None) -> Cache:
    """Choose where to cache the decoded images of a split, by their measured size.

    Args:
        split: `Split` to train on.
        kind: String, `"memory"`, `"disk"`, `"none"` or `"auto"`. `"auto"` caches in memory if the images take less
            than a quarter of the free memory, otherwise on disk if `folder` is given and they take less than half of
            its free space, otherwise nowhere.
        folder: Folder for a cache on disk.

    Raises:
        UserError: `kind` is unknown, or `"disk"` without a folder.
    """
    one_of("cache", kind, [each for each in CACHES if each != "packed"])  # a copy of the whole data, not of a split
    if in_memory(split):
        return Cache("none", "the images are already in memory")
    if kind == "none":
        return Cache("none", "images are decoded again in every epoch, as requested")
    if kind == "disk" and folder is None:
        raise UserError('cache="disk" needs a folder for the pixels: choose_cache(split, "disk", folder).')
    size = decoded_bytes(split)
    memory, disk = host_bytes()[0], _free_disk(Path(folder)) if folder is not None else 0
    needed = f"{size / 1e9:.2f} GB of pixels" if size >= 1e8 else f"{size / 1e6:.1f} MB of pixels"
    if kind == "memory" or (kind == "auto" and size < memory / 4):
        return Cache("memory", f"{needed} are cached in memory, {memory / 1e9:.1f} GB are free")
    if folder is not None and (kind == "disk" or size < disk / 2):
        return Cache("disk", f"{needed} are cached on disk, {disk / 1e9:.1f} GB are free", Path(folder))
    free = f"{memory / 1e9:.1f} GB of memory" + (f" and {disk / 1e9:.1f} GB of disk" if folder is not None else "")
    return Cache("none", f"{needed} are too many for {free}: images are decoded again in every epoch")


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """Split with a cache of its decoded images, which several pipelines can share.

    Args:
        split: `Split`.
        data: `tf.data.Dataset` of `(image, label)`, in the order of the split.
        decoded: Bool, whether images are pixels; otherwise they are file paths or encoded bytes.
        buffer: Int, size of the shuffle buffer in elements: more than all of them unless they come from a stream or
            a cache on disk.
    """

    split: Split
    data: tf.data.Dataset
    decoded: bool
    buffer: int

    def __len__(self) -> int:
        return len(self.split)


def cached_split(split: Split, cache: Cache) -> CachedSplit:
    """Decode and cache the images of a split as `cache` specifies.

    Args:
        split: `Split`.
        cache: `Cache`, as returned by `choose_cache`.

    Raises:
        UserError: A cache on disk without a folder.
    """
    data, everything = elements(split), len(split) + 1  # one more than all: the shuffle reads to the end of the cache
    if cache.kind == "none":
        streamed = isinstance(split.images, Encoded)
        buffer = min(everything, _shuffle_buffer(encoded_bytes(split))) if streamed else everything
        return CachedSplit(split, data, in_memory(split), buffer)
    # Autotuning needs longer than the iterator of a single epoch lives.

    @without_autograph
    def decoded(image, label):
        return decode(contents(image, split)), decoded_label(label, split)

    data = data.map(decoded, num_parallel_calls=os.cpu_count())
    if cache.kind == "memory":
        return CachedSplit(split, data.cache(), True, everything)
    if cache.folder is None:
        raise UserError('A cache on disk needs a folder: Cache("disk", folder=...).')
    make_folder(cache.folder)
    for leftover in cache.folder.glob("pixels*"):  # of a run that was killed: tf.data would wait for its lock
        leftover.unlink()
    buffer = min(everything, _shuffle_buffer(decoded_bytes(split) / len(split)))
    return CachedSplit(split, data.cache(os.fsencode(cache.folder / "pixels")), True, buffer)


def _shuffle_buffer(size: float) -> int:
    """Number of elements of `size` bytes that fit the shuffle buffer."""
    return max(1, int(_SHUFFLE_BYTES / size))


def encoded_bytes(split: Split) -> float:
    """Mean encoded size of the images of a stream, estimated from a sample of 16."""
    sample = split.sample(_SAMPLE_SIZE).encoded.read()
    return float(np.mean([len(image) for image in sample.as_numpy_iterator()]))
