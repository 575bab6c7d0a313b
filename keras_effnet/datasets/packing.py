"""Any data set written as TFRecord shards with an index, shrunk on the way if asked: whole, or not at all.

Imports `datasets`, `shard_writer`, `shards`, `folders`, `images`, `splits`, `errors`.
"""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_effnet.datasets.decoding import BadFile, decode_all, decode_files
from keras_effnet.datasets.folders import Progress, check_bad_file_limit
from keras_effnet.datasets.loading import read_source
from keras_effnet.datasets.splits import Encoded, SourceData, Split
from keras_effnet.datasets.tfrecord import FORMAT, INDEX, RECORDS, VERSION
from keras_effnet.datasets.tfrecord_writer import ShardWriter, atomic_folder, check_target, record
from keras_effnet.errors import UserError

MARGIN = 1.15  # a random crop that is enlarged to the training size has lost little, and evaluation nothing
JPEG_QUALITY = 95
_AHEAD = 64  # images that wait for the writer, so that a slow disk does not fill the memory


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote.

    Args:
        folder: Path.
        images, classes, shards, shrunk: Ints, how many.
        bytes: Int, size of the shards.
        skipped: Tuple of `BadFile`.
    """

    folder: Path
    images: int
    classes: int
    shards: int
    bytes: int
    shrunk: int
    skipped: tuple[BadFile, ...] = ()


class _Image(NamedTuple):
    """An image to pack: its place in its split, what it is called, its bytes and pixels or why there are none."""

    place: int
    name: str
    found: tuple[bytes, np.ndarray] | BadFile


@dataclass
class _Totals:
    """What has been written so far."""

    images: int = 0
    bytes: int = 0
    shrunk: int = 0
    skipped: list[BadFile] = field(default_factory=list)

    def of(self, expected: int) -> str:
        """How far this is, and how much all of it will need."""
        megabytes = self.bytes / max(self.images, 1) * expected / 1e6
        return f"{self.images:,} of {expected:,} images ({megabytes:,.1f} MB are needed for all)"


def stratified_shuffle(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order in which every stretch has its share of each class, so that shards are alike.

    Args:
        labels: Int array of shape `(N,)`.
        seed: Int.

    Returns:
        A permutation of `range(N)`.
    """
    rng = np.random.default_rng(seed)
    times = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        times[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(times, kind="stable")


def shrink(contents: bytes, pixels: np.ndarray, shorter_side: int | None) -> tuple[bytes, bool]:
    """Encoded bytes of an image whose shorter side is at most so many pixels, and whether they are new.

    An image that is small enough keeps its bytes. A larger one is resized with antialiasing and becomes a JPEG.
    """
    height, width = pixels.shape[:2]
    if shorter_side is None or min(height, width) <= shorter_side:
        return contents, False
    scale = shorter_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    buffer = io.BytesIO()
    # Pillow widens the kernel where it makes smaller, which is what antialiasing means.
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    resized.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), True


def _as_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _images(split: Split, seed: int) -> Iterator[_Image]:
    """The images in the order in which they are written, decoded once. A stream can only be read as it comes."""
    if isinstance(split.images, Encoded):
        places = range(len(split))
        names = [f"record {place}" for place in places]
        found = decode_all(split.images.read(), names)
    else:
        places = stratified_shuffle(split.labels, seed).tolist()
        if isinstance(split.images, tuple):
            names = [split.images[place] for place in places]
            found = decode_files(names)
        else:
            names = [f"image {place}" for place in places]
            found = ((_as_png(split.images[place]), split.images[place]) for place in places)
    yield from map(_Image, places, names, found)


def _in_order(function: Callable, items: Iterable) -> Iterator:
    """A parallel map that keeps the order and never runs far ahead of its reader."""
    with ThreadPoolExecutor() as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_split(
    split: Split,
    writer: ShardWriter,
    class_names: tuple[str, ...],
    shorter_side: int | None,
    seed: int,
    totals: _Totals,
    progress: Progress,
) -> np.ndarray:
    """Writes the shards of a split; returns, for each record, the place of the image in its source."""
    places = []

    def shrunk(image: _Image) -> tuple[_Image, bytes, bool]:
        if isinstance(image.found, BadFile):
            return image, b"", False
        return image, *shrink(*image.found, shorter_side)

    for image, contents, is_new in _in_order(shrunk, progress(_images(split, seed))):
        if isinstance(image.found, BadFile):
            totals.skipped.append(image.found)
            continue
        label = int(split.labels[image.place])
        writer.write(record(contents, Path(image.name).name, label, class_names[label]))
        places.append(image.place)
        totals.images += 1
        totals.bytes += len(contents)
        totals.shrunk += is_new
    writer.close()
    return np.array(places, int)


def pack(
    source: str | Path,
    out: str | Path,
    *,
    size: int | None = None,
    shards: int | None = None,
    seed: int = 0,
    max_bad_files: int = 10,
    overwrite: bool = False,
    data_dir: str | None = None,
    progress: Callable[[str, int], Progress] = lambda description, total: iter,
) -> Packed:
    """Writes any data that `datasets.load` reads as TFRecord shards, which it then reads faster.

    `load(out)` gives the classes, labels and division of `load(source)`. Images keep their bytes unless they are
    larger than `size` wants them. Records are shuffled, each class spread evenly; those of a stream (TFDS, other
    TFRecords) keep its order.

    Args:
        source: What `datasets.load` takes.
        out: Folder; it is made, and holds either everything or nothing.
        size: Int, the largest size that networks will be trained at, or None to keep all pixels. The shorter side of a
            image becomes at most 1.15 times as long.
        shards: Int, how many files the training images are cut into; by default files of about 100 MB.
        seed: Int, of the shuffling, and of the split of the embedded digits.
        max_bad_files: Int, how many images may be undecodable before this is an error. They are left out and listed
            in the index.
        overwrite: Bool, whether an earlier pack in `out` is replaced.
        data_dir: Path, where TensorFlow Datasets keeps its files.
        progress: Function of a description and a number that returns a wrapper of an iteration, for a progress bar.

    Returns:
        A `Packed`.

    Raises:
        UserError: The source cannot be read, `out` is not free, or the disk is full.
    """
    for name, value, least in (("size", size, 8), ("shards", shards, 1)):
        if value is not None and value < least:
            raise UserError(f"{name} must be at least {least}, got {value}.")
    out = Path(out)
    check_target(out, overwrite)
    parts = read_source(source, seed=seed, check=False, data_dir=data_dir)
    expected = sum(map(len, parts.splits.values()))
    totals = _Totals()
    index = {"format": FORMAT, "version": VERSION, "name": parts.name, "source": str(source)}
    with atomic_folder(out, lambda: totals.of(expected)) as partial:
        written, arrays = _write_splits(parts, partial, size, shards, seed, totals, progress)
        check_bad_file_limit(totals.skipped, expected, max_bad_files)
        np.savez(partial / RECORDS, **arrays)
        index |= _describe(parts, size, totals) | {"splits": written}
        (partial / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    every = [shard for shards in written.values() for shard in shards]
    size_on_disk = sum(shard["bytes"] for shard in every)
    counts = (totals.images, len(parts.class_names), len(every), size_on_disk, totals.shrunk)
    return Packed(out, *counts, tuple(parts.skipped) + tuple(totals.skipped))


def _describe(parts: SourceData, size: int | None, totals: _Totals) -> dict:
    first = next(iter(parts.splits.values()))
    return {
        "class_names": list(parts.class_names),
        "mirror": first.mirror,
        "shorter_side": _limit(size),
        "skipped": [item._asdict() for item in (*parts.skipped, *totals.skipped)],
    }


def _limit(size: int | None) -> int | None:
    return None if size is None else round(MARGIN * size)


def _write_splits(parts, folder, size, shards, seed, totals, progress) -> tuple[dict, dict]:
    """Shards of every split, and the labels of their records with the places that these had in the source."""
    written, arrays = {}, {}
    train = len(parts.splits.get("train", next(iter(parts.splits.values()))))
    each = None if shards is None else -(-train // shards)
    for split, images in parts.splits.items():
        writer = ShardWriter(folder, split, each)
        wrapper = progress(f"Packing {split}", len(images))
        places = _write_split(images, writer, parts.class_names, _limit(size), seed, totals, wrapper)
        # Where the source itself was packed, its own order counts: a pack of a pack is divided as the first source is.
        order = parts.order[places] if split == "train" and parts.order is not None else places
        arrays |= {f"{split}_labels": images.labels[places], f"{split}_order": np.argsort(np.argsort(order))}
        written[split] = writer.shards
    return written, arrays
