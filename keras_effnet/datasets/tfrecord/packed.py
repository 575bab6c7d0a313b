"""Read shards that this package packed, through their index. TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from keras_effnet.datasets.decoding import BadFile
from keras_effnet.datasets.findings.data_identity import Identity
from keras_effnet.datasets.labels.stored import read_labels
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import Split
from keras_effnet.datasets.tfrecord.records import encoded_shards
from keras_effnet.errors import UserError, first_line
from keras_effnet.system.documents import parse_json
from keras_effnet.system.typed_values import conform

FORMAT, VERSION = "keras-effnet pack", 1
INDEX, RECORDS, PARTIAL = "index.json", "records.npz", ".partial"


class Shard(TypedDict):
    """A shard file in the index of a packed folder."""

    file: str
    count: int
    bytes: int


class Skipped(TypedDict):
    """An image that was not packed."""

    path: str
    reason: str


class _Source(TypedDict, total=False):
    data: Identity  # of the images that were packed; earlier versions did not record it
    task: DataTask  # what the labels are for; classification if it is not recorded


class PackIndex(_Source):
    """Index of a packed folder, `index.json`."""

    name: str
    class_names: list[str]
    mirror: bool
    skipped: list[Skipped]
    splits: dict[Literal["train", "val", "test"], list[Shard]]


def read_index(folder: Path) -> dict | None:
    """Read the index of a packed folder; None if there is none, or if another program wrote it.

    Raises:
        UserError: A later version of the format.
    """
    try:
        index = parse_json((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        return None
    version = index.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{folder} was packed by a later version of keras-effnet (format {version}, this one reads up to "
            f"{VERSION}): upgrade, or pack the images again."
        )
    try:
        return dict(conform(index, PackIndex, ""))
    except UserError as error:
        raise UserError(f"{folder / INDEX} is damaged: {error}. Copy the folder again, or pack again.") from None


def _packed_split(folder: Path, split: str, shards: list[dict], labels: Any, mirror: bool) -> Split:
    for shard in shards:
        path = folder / Path(shard["file"]).name  # within the folder, whatever the index says
        size = path.stat().st_size if path.is_file() else None
        if size != shard["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes where {shard['bytes']} were written"
            raise UserError(f"{path} {found}: copy the folder again, or run keras-effnet pack again.")
    count = sum(shard["count"] for shard in shards)
    if count != len(labels):
        raise UserError(f"{folder / RECORDS} has {len(labels)} labels for {count} {split} images; pack them again.")
    files = [folder / Path(shard["file"]).name for shard in shards]
    return Split(encoded_shards(files, count), labels, mirror)


def read_packed(folder: Path, index: dict) -> SourceData:
    """Read a folder written by `keras-effnet pack`.

    Args:
        folder: Path.
        index: Dict returned by `read_index`.

    Raises:
        UserError: A file is missing, truncated or damaged.
    """
    folder = folder.resolve()
    try:
        with np.load(folder / RECORDS) as records:
            arrays = dict(records)
        task = index.get("task", "classification")
        splits = {
            split: _packed_split(folder, split, shards, read_labels(arrays, split, task), index["mirror"])
            for split, shards in index["splits"].items()
        }
        skipped = tuple(BadFile(item["path"], item["reason"]) for item in index["skipped"])
        names = tuple(index["class_names"])
        return SourceData(index["name"], names, splits, skipped, arrays.get("train_order"), task=task)
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises errors of any type
        raise UserError(
            f"{folder} is damaged ({type(error).__name__}: {first_line(error)}): copy it again, or pack again."
        ) from None
