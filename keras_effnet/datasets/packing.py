"""Pack any dataset into indexed TFRecord shards, optionally downscaled, written atomically. TensorFlow and Pillow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from keras_effnet.datasets.decoding import BadFile, decode_all
from keras_effnet.datasets.findings.data_identity import difference, identity_of
from keras_effnet.datasets.folders import Progress, check_bad_file_limit, check_decoded_classes, labels_of
from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.labels.stored import read_labels, record_label, stored_labels
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.datasets.listing.tree import LeftOut
from keras_effnet.datasets.many_files import decode_files
from keras_effnet.datasets.readers import read_source
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import Encoded, Split
from keras_effnet.datasets.stratification import stratified_shuffle
from keras_effnet.datasets.tfrecord.packed import FORMAT, INDEX, RECORDS, VERSION, read_index
from keras_effnet.datasets.tfrecord.stored_images import as_png, reduced_size, shrink, size_limit
from keras_effnet.datasets.tfrecord.writer import ShardWriter, atomic_folder, check_target, record
from keras_effnet.errors import UserError
from keras_effnet.system.documents import json_text
from keras_effnet.system.portable_paths import portable

_T = TypeVar("_T")
_R = TypeVar("_R")
_AHEAD = 64  # images that may wait for the writer, so that a slow disk does not fill the memory


@dataclass(frozen=True)
class Packed:
    """Result of `pack`.

    Args:
        folder: Path.
        images: Int, number of images written.
        classes: Int, number of classes, labels or values.
        shards: Int, number of files.
        bytes: Int, total size of the shards.
        shrunk: Int, number of images that were downscaled.
        skipped: Tuple of `BadFile`.
        left_out: Tuple of `LeftOut(path, kind)`, files and folders that may be or contain images but are not read.
        changes: String or None, how the data differ from those of the pack that was replaced.
        task: String, the task of the data.
    """

    folder: Path
    images: int
    classes: int
    shards: int
    bytes: int
    shrunk: int
    skipped: tuple[BadFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    changes: str | None = None
    task: str = "classification"


class _Image(NamedTuple):
    """Index of an image in its split, its name, and its bytes and pixels, or why it cannot be decoded."""

    place: int
    name: str
    found: tuple[bytes, np.ndarray] | BadFile


@dataclass
class _Totals:
    """Running totals of the images written."""

    images: int = 0
    bytes: int = 0
    shrunk: int = 0
    skipped: list[BadFile] = field(default_factory=list)

    def of(self, expected: int) -> str:
        """Describe the progress and estimate the total size."""
        megabytes = self.bytes / max(self.images, 1) * expected / 1e6
        return f"{self.images:,} of {expected:,} images ({megabytes:,.1f} MB are needed for all)"


def _images(split: Split, task: DataTask, seed: int) -> Iterator[_Image]:
    """Decode the images of a split in the order in which they are written: shuffled, or a stream in its own order."""
    if isinstance(split.images, Encoded):
        names = [f"record {place}" for place in range(len(split))]
        yield from map(_Image, range(len(split)), names, decode_all(split.images.read(), names))
        return
    places = stratified_shuffle(KINDS[task].strata(split.labels), seed).tolist()
    if isinstance(split.images, tuple):
        names = [split.images[place] for place in places]
        yield from map(_Image, places, names, decode_files(names))
        return
    for place in places:
        pixels = split.images[place]
        yield _Image(place, f"image {place}", (as_png(pixels), pixels))


def _parallel_map(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Map in parallel, in order, with a bounded number of results waiting."""
    with ThreadPoolExecutor() as pool:
        waiting: deque[Future[_R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_split(
    split: Split,
    writer: ShardWriter,
    parts: SourceData,
    shorter_side: int | None,
    seed: int,
    totals: _Totals,
    progress: Progress,
) -> tuple[np.ndarray, list[Any]]:
    """Write the shards of a split; returns the index of each record's image in the split, and its label."""
    places, labels = [], []
    reduce = partial(reduced_size, shorter_side=shorter_side)

    def shrunk(image: _Image) -> tuple[_Image, bytes, bool]:
        if isinstance(image.found, BadFile):
            return image, b"", False
        return image, *shrink(*image.found, shorter_side)

    for image, contents, is_new in _parallel_map(shrunk, progress(_images(split, parts.task, seed))):
        if isinstance(image.found, BadFile):
            totals.skipped.append(image.found)
            continue
        label = record_label(split.labels, image.place, reduce, parts.task)
        writer.write(record(contents, Path(image.name).name, label, parts.class_names, parts.task))
        places.append(image.place)
        labels.append(label)
        totals.images += 1
        totals.bytes += len(contents)
        totals.shrunk += is_new
    writer.close()
    return np.array(places, int), labels


def pack(
    source: str | Path,
    out: str | Path,
    *,
    task: DataTask | None = None,
    size: int | None = None,
    shards: int | None = None,
    seed: int = 0,
    max_bad_files: int = 10,
    skip_empty_classes: bool = False,
    overwrite: bool = False,
    data_dir: str | None = None,
    progress: Callable[[str, int], Progress] = lambda description, total: iter,
) -> Packed:
    """Pack a dataset into TFRecord shards, which `datasets.load` reads faster than files.

    `load(out)` gives the same classes, labels and splits as `load(source)`. Images keep their bytes unless they exceed
    `size`. Records are shuffled with an even distribution of every class; a stream (TFDS, other TFRecords) keeps its
    order.

    Args:
        source: Source as `datasets.load` takes it.
        out: Folder to create. It is written completely or not at all.
        task: String, what the labels are for, as in `datasets.load`.
        size: Int, the largest image size, in pixels, that networks will be trained at; None keeps all pixels. The
            shorter side of an image is reduced to at most 1.15 times this size, with its mask or boxes.
        shards: Int, number of files for the training images; by default files of about 100 MB.
        seed: Int, seed of the shuffle and of the split of the embedded digits.
        max_bad_files: Int, number of undecodable images allowed. They are skipped and listed in the index.
        skip_empty_classes: Bool, whether to leave out classes without an image that can be decoded, as in
            `datasets.load`. Every image is then decoded twice.
        overwrite: Bool, whether to replace an earlier pack in `out`.
        data_dir: Path of TensorFlow Datasets' files.
        progress: Function of a description and a total that returns a wrapper of an iteration, for a progress bar.

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
    parts = read_source(
        source,
        task=task,
        seed=seed,
        max_bad_files=max_bad_files,
        skip_empty_classes=skip_empty_classes,
        check=skip_empty_classes,  # the classes must be known before the first record is written
        data_dir=data_dir,
    )
    expected = sum(map(len, parts.splits.values()))
    totals = _Totals()
    index: dict[str, Any] = {"format": FORMAT, "version": VERSION, "name": parts.name}
    index["source"] = portable(source, out) if Path(source).exists() else str(source)
    index["data"] = identity_of(parts.class_names, parts.splits, parts.task)
    replaced = (read_index(out) or {}).get("data")
    with atomic_folder(out, lambda: totals.of(expected)) as partial:
        check_target(out, overwrite)  # again: another process may have finished a pack meanwhile
        written, arrays = _write_splits(parts, partial, size, shards, seed, totals, progress)
        check_bad_file_limit(totals.skipped, expected, max_bad_files)
        packed = {split: read_labels(arrays, split, parts.task) for split in written}
        check_decoded_classes(parts.name, parts.class_names, labels_of(parts.splits), packed, parts.task)
        np.savez(partial / RECORDS, **arrays)  # type: ignore[arg-type] # the stub matches ** to allow_pickle too
        index |= _describe(parts, size, totals) | {"splits": written}
        (partial / INDEX).write_text(json_text(index) + "\n", encoding="utf-8")
    every = [shard for shards in written.values() for shard in shards]
    size_on_disk = sum(shard["bytes"] for shard in every)
    counts = (totals.images, len(parts.class_names), len(every), size_on_disk, totals.shrunk)
    changes = difference(replaced, index["data"]) if replaced else None
    return Packed(out, *counts, tuple(parts.skipped) + tuple(totals.skipped), parts.left_out, changes, parts.task)


def _describe(parts: SourceData, size: int | None, totals: _Totals) -> dict[str, Any]:
    first = next(iter(parts.splits.values()))
    return ({"task": parts.task} if parts.task != "classification" else {}) | {
        "class_names": list(parts.class_names),
        "mirror": first.mirror,
        "shorter_side": size_limit(size),
        "skipped": [item._asdict() for item in (*parts.skipped, *totals.skipped)],
    }


def _write_splits(
    parts: SourceData,
    folder: Path,
    size: int | None,
    shards: int | None,
    seed: int,
    totals: _Totals,
    progress: Callable[[str, int], Progress],
) -> tuple[dict[str, list[dict]], dict[str, np.ndarray]]:
    """Write the shards of every split; returns their descriptions, and the labels and original order of the records."""
    written: dict[str, list[dict]] = {}
    arrays: dict[str, np.ndarray] = {}
    train = len(parts.splits.get("train", next(iter(parts.splits.values()))))
    each = None if shards is None else -(-train // shards)
    for split, images in parts.splits.items():
        writer = ShardWriter(folder, split, each)
        wrapper = progress(f"Packing {split}", len(images))
        places, labels = _write_split(images, writer, parts, size_limit(size), seed, totals, wrapper)
        # If the source itself is packed, keep its original order: a pack of a pack is split like the first source.
        order = parts.order[places] if split == "train" and parts.order is not None else places
        arrays |= stored_labels(labels, split, parts.task) | {f"{split}_order": np.argsort(np.argsort(order))}
        written[split] = writer.shards
    return written, arrays
