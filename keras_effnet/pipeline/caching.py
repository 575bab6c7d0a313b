"""What a split yields one by one, and where its decoded images are kept between the epochs.

Imports `config`, `splits`, `images`, `machine`, `errors`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_effnet.config.train_config import CACHES
from keras_effnet.datasets.decoding import decode
from keras_effnet.datasets.splits import Encoded, Split
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.machine import host_bytes

_SHUFFLE_BYTES = 256 << 20  # bytes of images among which a stream is shuffled: its order on disk is mixed already
_SAMPLE_SIZE = 16  # images by which the size of all is estimated


def elements(split: Split) -> tf.data.Dataset:
    """`(image, label)`, one by one: pixels, the path of a file, or a file's bytes."""
    if isinstance(split.images, Encoded):
        return tf.data.Dataset.zip((split.images.read(), tf.data.Dataset.from_tensor_slices(split.labels)))
    images = list(split.images) if isinstance(split.images, tuple) else split.images
    return tf.data.Dataset.from_tensor_slices((images, split.labels))


def contents(image, split: Split) -> tf.Tensor:
    """A file's bytes, of an element that is a path or holds them."""
    return tf.io.read_file(image) if isinstance(split.images, tuple) else image


def in_memory(split: Split) -> bool:
    """Whether a split's images are pixels already."""
    return not isinstance(split.images, tuple | Encoded)


def decoded_bytes(split: Split) -> int:
    """Size of all images of a split as pixels; of files and streams estimated from a sample of 16."""
    if in_memory(split):
        return split.images.nbytes
    sample = split.sample(_SAMPLE_SIZE)
    sizes = [decode(contents(image, sample)).shape.num_elements() for image, _ in elements(sample)]
    return int(np.mean(sizes) * len(split))


@dataclass(frozen=True)
class Cache:
    """Where decoded images are kept between the epochs.

    Args:
        kind: String, `"memory"`, `"disk"` or `"none"`.
        reason: String, a sentence that says why.
        folder: Path for a cache on disk.
    """

    kind: str
    reason: str = ""
    folder: Path | None = None


def _free_disk(folder: Path) -> int:
    """Bytes that are free where a folder lies, or will lie."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


def choose_cache(split: Split, kind: str = "auto", folder: str | Path | None = None) -> Cache:
    """Decides by measured size where decoded images of a split are kept.

    Args:
        split: `Split` to train on.
        kind: String, `"auto"`: in memory if they take less than a quarter of what is free, else on disk if they take
            less than half of what is free there and there is a folder to put them in, else nowhere. Or `"memory"`,
            `"disk"`, `"none"`.
        folder: Folder for a cache on disk.

    Raises:
        UserError: `"disk"` without a folder.
    """
    one_of("cache", kind, CACHES)
    if in_memory(split):
        return Cache("none", "the images are in memory as they are")
    if kind == "none":
        return Cache("none", "images are decoded anew in every epoch, as asked")
    if kind == "disk" and folder is None:
        raise UserError('cache="disk" needs a folder to put the pixels in: choose_cache(split, "disk", folder).')
    size = decoded_bytes(split)
    memory, disk = host_bytes()[0], _free_disk(Path(folder)) if folder is not None else 0
    room = f"{size / 1e9:.2f} GB of pixels" if size >= 1e8 else f"{size / 1e6:.1f} MB of pixels"
    if kind == "memory" or (kind == "auto" and size < memory / 4):
        return Cache("memory", f"{room} are kept in memory, where {memory / 1e9:.1f} GB are free")
    if kind == "disk" or (kind == "auto" and size < disk / 2):
        return Cache("disk", f"{room} are kept on disk, where {disk / 1e9:.1f} GB are free", Path(folder))
    free = f"{memory / 1e9:.1f} GB of memory" + (f" and {disk / 1e9:.1f} GB of disk" if folder is not None else "")
    return Cache("none", f"{room} are too many for {free}: images are decoded anew in every epoch")


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """A split as the elements that pipelines draw from. Those that share a source share its cache.

    Args:
        split: `Split`.
        data: `tf.data.Dataset` of `(image, label)`, in the order of the split.
        decoded: Bool, whether an image is pixels; else it is the path of a file, or a file's bytes.
        buffer: Int, how many elements are shuffled together: all where they are small or in memory anyway.
    """

    split: Split
    data: tf.data.Dataset
    decoded: bool
    buffer: int

    def __len__(self) -> int:
        return len(self.split)


def cached_split(split: Split, cache: Cache) -> CachedSplit:
    """The elements of a split, decoded and kept as `cache` says."""
    data, everything = elements(split), len(split) + 1  # by one too many, it reads to the end: that completes a cache
    if cache.kind == "none":
        some = isinstance(split.images, Encoded)
        buffer = min(everything, _shuffle_buffer(encoded_bytes(split))) if some else everything
        return CachedSplit(split, data, in_memory(split), buffer)
    # The iterators of single epochs are too short-lived for autotuning.
    data = data.map(lambda image, label: (decode(contents(image, split)), label), num_parallel_calls=os.cpu_count())
    if cache.kind == "memory":
        return CachedSplit(split, data.cache(), True, everything)
    cache.folder.mkdir(parents=True, exist_ok=True)
    for leftover in cache.folder.glob("pixels*"):  # of a run that was killed: tf.data would wait for it
        leftover.unlink()
    buffer = min(everything, _shuffle_buffer(decoded_bytes(split) / len(split)))
    return CachedSplit(split, data.cache(str(cache.folder / "pixels")), True, buffer)


def _shuffle_buffer(size: float) -> int:
    return max(1, int(_SHUFFLE_BYTES / size))


def encoded_bytes(split: Split) -> float:
    """Mean size of the files of a stream, estimated from a sample of 16."""
    return float(np.mean([len(image) for image in split.sample(_SAMPLE_SIZE).images.read().as_numpy_iterator()]))
