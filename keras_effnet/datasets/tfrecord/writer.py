"""Write TFRecord shards, and publish a folder of them atomically even if the disk fills up or the process dies.

TensorFlow.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.datasets.tfrecord.packed import INDEX, PARTIAL, RECORDS, read_index
from keras_effnet.datasets.tfrecord.records import BOX, FILE, IMAGE, LABEL, MASK, TEXT, VALUES
from keras_effnet.errors import UserError
from keras_effnet.system.run_folders import LOCK, locked

SHARD_BYTES = 100_000_000


class ShardWriter:
    """Write the shards of one split, starting a new one after a number of images or bytes.

    Args:
        folder: Path of an existing folder.
        split: String, prefix of the file names.
        images_each: Int, images per shard; None for shards of `SHARD_BYTES`.
    """

    def __init__(self, folder: Path, split: str, images_each: int | None):
        self.folder, self.split, self.images_each = folder, split, images_each
        self.shards: list[dict] = []
        self._file: tf.io.TFRecordWriter | None = None
        self._written = 0

    def write(self, record: bytes) -> None:
        """Append a record, to a new shard if the current one is full."""
        if self._file is None:
            self.shards.append({"file": f"{self.split}-{len(self.shards):05d}.tfrecord", "count": 0})
            self._file = tf.io.TFRecordWriter(os.fsencode(self.folder / self.shards[-1]["file"]))
            self._written = 0
        self._file.write(record)
        self._written += len(record)
        self.shards[-1]["count"] += 1
        full = self._written >= SHARD_BYTES
        if self.shards[-1]["count"] == self.images_each if self.images_each else full:
            self.close()

    def close(self) -> None:
        """Close the current shard and record its size in `shards`."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self.shards[-1]["bytes"] = (self.folder / self.shards[-1]["file"]).stat().st_size


def _text(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _classes(numbers: list[int], names: Sequence[str]) -> dict[str, tf.train.Feature]:
    return {
        LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=numbers)),
        TEXT: _text(*(names[number].encode() for number in numbers)),
    }


def _values(label: Any, names: Sequence[str]) -> dict[str, tf.train.Feature]:
    return {VALUES: tf.train.Feature(float_list=tf.train.FloatList(value=label.tolist()))}


def _boxes(label: Boxes, names: Sequence[str]) -> dict[str, tf.train.Feature]:
    """Features of TensorFlow's object detection API: corners as shares of the image."""
    corners = label.boxes / np.tile(label.sizes[0], 2)
    floats = {
        f"{BOX}/bbox/{name}": tf.train.Feature(float_list=tf.train.FloatList(value=column.tolist()))
        for name, column in zip(("ymin", "xmin", "ymax", "xmax"), corners.T, strict=True)
    }
    numbers = {
        "image/height": label.sizes[:, 0],
        "image/width": label.sizes[:, 1],
        f"{BOX}/class/label": label.classes,
        f"{BOX}/is_crowd": label.crowd.astype(int),
    }
    return (
        floats
        | {
            name: tf.train.Feature(int64_list=tf.train.Int64List(value=values.tolist()))
            for name, values in numbers.items()
        }
        | {f"{BOX}/class/text": _text(*(names[number].encode() for number in label.classes.tolist()))}
    )


_FEATURES: dict[DataTask, Callable[[Any, Sequence[str]], dict[str, tf.train.Feature]]] = {
    "classification": lambda label, names: _classes([int(label)], names),
    "binary": lambda label, names: _classes([int(label)], names),
    "multilabel": lambda label, names: _classes(np.flatnonzero(label).tolist(), names),
    "regression": _values,
    "segmentation": lambda label, names: {MASK: _text(label)},
    "detection": _boxes,
}


def record(contents: bytes, file_name: str, label: Any, names: Sequence[str], task: DataTask) -> bytes:
    """Serialize an image as a `tf.train.Example` with the features of TensorFlow's ImageNet scripts.

    Args:
        contents: Bytes of the encoded image.
        file_name: String.
        label: Label of the image by the task, as `labels.stored.record_label` returns it.
        names: Names of the classes, labels or values.
        task: String, what the label is for.
    """
    features = {IMAGE: _text(contents), FILE: _text(os.fsencode(file_name))} | _FEATURES[task](label, names)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)  # the same pack has the same bytes


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, tf.errors.ResourceExhaustedError) and "No space left" in str(error)


@contextmanager
def atomic_folder(out: Path, progress: Callable[[], str]) -> Iterator[Path]:
    """Yield a hidden folder in `out` and publish its files only if the block succeeds.

    Args:
        out: Path of the folder; it is created.
        progress: Function that describes the progress of the block, for the error on a full disk.

    Raises:
        UserError: Another process writes to the folder, or the disk is full or not writable.
    """
    made = not out.exists()
    try:
        with locked(out):
            yield from _published(out)
    except BaseException as error:
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if _is_disk_full(error):
            raise UserError(
                f"The disk of {out} is full after {progress()}; all of it was removed. "
                "Free some space, choose another folder, or shrink the images with --size."
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"Cannot write {out}: {error.strerror or error}. Choose another folder.") from None
        raise


def _published(out: Path) -> Iterator[Path]:
    partial = out / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        partial.mkdir()
        yield partial
        _publish_files(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _publish_files(partial: Path, out: Path) -> None:
    """Move finished files to their destination, the index last: a folder with an index is complete."""
    _remove_pack(out)
    try:
        for path in sorted(partial.iterdir(), key=lambda path: (path.name == INDEX, path.name)):
            path.replace(out / path.name)
    except BaseException:
        _remove_pack(out)
        raise
    partial.rmdir()


def _remove_pack(out: Path) -> None:
    """Remove an earlier pack, or files already published by a killed run, and no others."""
    index = read_index(out)
    if index:
        (out / INDEX).unlink()  # first: a folder without an index is not read
        # File names only: an index from elsewhere must not point to other folders.
        names = [Path(shard["file"]).name for shards in index["splits"].values() for shard in shards]
    else:
        names = [path.name for path in out.glob("*-[0-9][0-9][0-9][0-9][0-9].tfrecord")]
    for name in [*names, RECORDS]:
        (out / name).unlink(missing_ok=True)


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a folder with other files in it, or with an earlier pack unless `overwrite` is set.

    Raises:
        UserError: The folder is neither free nor may be replaced.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; shards are written to a folder.")
    if not out.is_dir() or {path.name for path in out.iterdir()} <= {LOCK}:
        return
    if read_index(out):
        if not overwrite:
            raise UserError(f"{out} already holds packed images. Replace them with --overwrite, or choose another.")
    elif not (out / PARTIAL).is_dir():
        raise UserError(f"{out} is not empty and not a packed folder that could be replaced. Choose a new folder.")
