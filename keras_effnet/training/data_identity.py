"""Identity of the data of a run, so that a resumed run is refused on other data. Pure Python and numpy.

Names and sizes of files are compared, not their contents: reading all images again would take as long as an epoch.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypedDict

import numpy as np

from keras_effnet.datasets.splits import ImageDataset, Split
from keras_effnet.errors import UserError
from keras_effnet.system.documents import json_text, read_json
from keras_effnet.system.files import write_text
from keras_effnet.system.typed_values import conform

DATA = "data.json"


class Identity(TypedDict):
    """Number of training and validation images, and a digest of their names, sizes and labels."""

    train: int
    val: int
    digest: str


def identity(dataset: ImageDataset) -> Identity:
    """Identify a dataset by class names, labels, and names (below their common folder) and sizes of its files."""
    digest = hashlib.sha256("\0".join(dataset.class_names).encode(errors="surrogateescape"))
    for split in (dataset.train, dataset.val):
        digest.update(np.asarray(split.labels, "int32").tobytes())
        for name, size in _files(split):
            digest.update(f"\0{name}\0{size}".encode(errors="surrogateescape"))
    return {"train": len(dataset.train), "val": len(dataset.val), "digest": digest.hexdigest()}


def _files(split: Split) -> list[tuple[str, int]]:
    """Names and sizes of the files of a split; none for arrays and streams, which are compared by their labels."""
    if not isinstance(split.images, tuple) or not split.images:
        return []
    paths = [os.path.abspath(path) for path in split.images]  # noqa: PTH100 - a list may mix both kinds of paths
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120 - ten times as fast
    return [(os.path.relpath(path, root), _size(path)) for path in paths]


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def save_identity(dataset: ImageDataset, folder: Path) -> None:
    """Write `data.json`."""
    write_text(folder / DATA, json_text(identity(dataset)) + "\n")


def check_identity(dataset: ImageDataset, folder: Path) -> None:
    """Refuse to resume a run on other data than it was started with.

    Raises:
        UserError: Images were added, removed, replaced or relabelled. A run of an earlier version has no record.
    """
    path = folder / DATA
    if not path.is_file():
        return
    try:
        before = conform(read_json(path), Identity, "")
    except UserError as error:
        raise UserError(f"{path} is damaged: {str(error).removesuffix('.')}. Remove it to resume without it.") from None
    now = identity(dataset)
    if now["digest"] == before["digest"]:
        return
    counts = [f"{each['train']} training and {each['val']} validation images" for each in (before, now)]
    what = f"{counts[0]} then, {counts[1]} now" if counts[0] != counts[1] else "names, sizes or labels differ"
    raise UserError(
        f"The data of {dataset.name} have changed since {folder} was started ({what}), so its results would mix both. "
        f"Restore them, start a new training, or remove {path} to resume on the changed data."
    )
