"""Targets: TFRecord shards and the index of a packed folder, read to the last image."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import tensorflow as tf
from fuzzing import through_cli

from keras_effnet.cli.app import external_cause
from keras_effnet.cli.commands import check_data  # noqa: F401 - so that the first file does not wait for the import
from keras_effnet.datasets.loading import load
from keras_effnet.errors import UserError
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.preprocessing import ImageSpec

PACKED = Path(tempfile.gettempdir()) / "keras-effnet-fuzz-packed"  # an intact packed folder, made by the test


def _with(path: Path, name: str, read) -> None:
    """Read a copy of the packed folder in which one file is the damaged one."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "packed"
        shutil.copytree(PACKED, copy)
        target = next(copy.glob(name))
        shutil.copy(path, target)
        read(copy)


def _load_and_read(folder: Path) -> None:
    data = load(folder)
    try:
        for _ in image_pipeline(data, ImageSpec(32), 4, training=True, cache=False).as_numpy_iterator():
            pass
    except tf.errors.DataLossError as error:  # of tf.data, to whoever iterates; a command makes one line of it
        raise UserError(str(external_cause(error))) from None


def shard(path: Path) -> None:
    """Load a packed folder with a damaged shard, and read one epoch."""
    _with(path, "*.tfrecord*", _load_and_read)


def checked(path: Path) -> None:
    """Check a folder of another program's shards, of which one is damaged."""

    def read(folder: Path) -> None:
        for name in ("index.json", "records.npz"):
            (folder / name).unlink()
        through_cli("check-data", folder)

    _with(path, "*.tfrecord*", read)


def index(path: Path) -> None:
    """Load a packed folder with a damaged index."""
    _with(path, "index.json", _load_and_read)


def records(path: Path) -> None:
    """Load a packed folder with a damaged table of records."""
    _with(path, "records.npz", _load_and_read)
