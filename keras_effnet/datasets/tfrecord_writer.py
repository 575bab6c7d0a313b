"""TFRecord shards written, and a folder of them that is whole or absent, on a full disk and after a kill too.

Imports TensorFlow, `shards`, `errors`.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from keras_effnet.datasets.tfrecord import FILE, IMAGE, INDEX, LABEL, PARTIAL, RECORDS, TEXT, read_index
from keras_effnet.errors import UserError

SHARD_BYTES = 100_000_000


class ShardWriter:
    """Shards of one split: the next begins when the last has enough images or bytes."""

    def __init__(self, folder: Path, split: str, images_each: int | None):
        self.folder, self.split, self.images_each = folder, split, images_each
        self.shards: list[dict] = []
        self._file = None
        self._written = 0

    def write(self, record: bytes) -> None:
        """Appends a record, to a new shard where the current one is full."""
        if self._file is None:
            self.shards.append({"file": f"{self.split}-{len(self.shards):05d}.tfrecord", "count": 0})
            self._file = tf.io.TFRecordWriter(str(self.folder / self.shards[-1]["file"]))
            self._written = 0
        self._file.write(record)
        self._written += len(record)
        self.shards[-1]["count"] += 1
        full = self._written >= SHARD_BYTES
        if self.shards[-1]["count"] == self.images_each if self.images_each else full:
            self.close()

    def close(self) -> None:
        """Closes the current shard and notes its size."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self.shards[-1]["bytes"] = (self.folder / self.shards[-1]["file"]).stat().st_size


def record(contents: bytes, file_name: str, label: int, class_name: str) -> bytes:
    """A serialized `tf.train.Example` with the usual features."""

    def text(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        IMAGE: text(contents),
        LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        TEXT: text(class_name.encode()),
        FILE: text(file_name.encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, tf.errors.ResourceExhaustedError) and "No space left" in str(error)


@contextmanager
def atomic_folder(out: Path, progress: Callable[[], str]) -> Iterator[Path]:
    """Yields a hidden folder in `out` and publishes what was written there, if the block succeeds.

    Args:
        out: Path of the folder; it is made.
        progress: Function that says how far the block came, for the error on a full disk.

    Raises:
        UserError: The disk is full, or cannot be written.
    """
    partial, made = out / PARTIAL, not out.exists()
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        yield partial
        _publish_files(partial, out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if _is_disk_full(error):
            raise UserError(
                f"The disk of {out} is full after {progress()}; nothing of it was kept. "
                "Free some space, choose another folder, or shrink the images with --size."
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"Cannot write {out}: {error.strerror or error}. Choose another folder.") from None
        raise


def _publish_files(partial: Path, out: Path) -> None:
    """Moves finished files to their place, the index last: a folder with an index is whole."""
    _remove_pack(out)
    try:
        for path in sorted(partial.iterdir(), key=lambda path: (path.name == INDEX, path.name)):
            path.replace(out / path.name)
    except BaseException:
        _remove_pack(out)
        raise
    partial.rmdir()


def _remove_pack(out: Path) -> None:
    """Removes an earlier pack, or what a killed run had moved already; of other files nothing."""
    index = read_index(out)
    if index:
        (out / INDEX).unlink()  # first: what has no index is not read
        # Their last parts only: an index from elsewhere must not point at other folders.
        names = [Path(shard["file"]).name for shards in index["splits"].values() for shard in shards]
    else:
        names = [path.name for path in out.glob("*-[0-9][0-9][0-9][0-9][0-9].tfrecord")]
    for name in [*names, RECORDS]:
        (out / name).unlink(missing_ok=True)


def check_target(out: Path, overwrite: bool) -> None:
    """Refuses a folder with other things in it, and without `overwrite` one with an earlier pack.

    Raises:
        UserError: It is neither free nor to be replaced.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; shards are written to a folder.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if read_index(out):
        if not overwrite:
            raise UserError(f"{out} holds packed images already. Replace them with --overwrite, or choose another.")
    elif not (out / PARTIAL).is_dir():
        raise UserError(f"{out} is not empty, and no packed folder that could be replaced. Choose a new folder.")
