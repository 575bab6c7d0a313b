"""Load labelled images from folders, CSV lists, TFRecord shards, TensorFlow Datasets, arrays or embedded data.

TensorFlow.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.datasets.csv_lists import find_manifest, read_manifest
from keras_effnet.datasets.digits import cluttered_digits, plain_digits
from keras_effnet.datasets.folders import Progress, read_folder, without_empty_classes
from keras_effnet.datasets.splits import ImageDataset, SourceData, Split
from keras_effnet.datasets.tfds import PREFIX, read_tfds
from keras_effnet.datasets.tfrecord import PARTIAL, find_records, read_index, read_packed, read_records
from keras_effnet.errors import UserError, check_path, real_number, unknown, whole_number

EMBEDDED = ("digits", "digits-cluttered")


def load(
    source: str | os.PathLike,
    *,
    val_split: float = 0.2,
    seed: int = 0,
    image_size: int = 64,
    max_bad_files: int = 10,
    skip_empty_classes: bool = False,
    check: bool = True,
    data_dir: str | os.PathLike | None = None,
    fold: Sequence[int] | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> ImageDataset:
    """Load labelled images and split them for training, validation and test.

    Args:
        source: One of:
            `"digits"`, `"digits-cluttered"`: embedded data;
            a folder with one folder per class, or with `train/` and `val/` (and `test/`) that contain class folders;
            a CSV file, or a folder with a `manifest.csv` or `labels.csv`: columns `path`, `label`, `split`;
            a folder of TFRecord shards, written by `keras-effnet pack` or with the features of TensorFlow's ImageNet
            scripts;
            `"tfds:name/config"`: TensorFlow Datasets.
        val_split: Float in (0, 1), stratified share held out for validation if the source has no validation images.
        seed: Int, seed of the split and of the cluttered scenes.
        image_size: Int, canvas of `"digits-cluttered"` in pixels.
        max_bad_files: Int, number of undecodable files allowed. They are skipped with a warning and listed in
            `skipped`.
        skip_empty_classes: Bool, whether to leave out classes without an image that can be decoded, for training or,
            if the source has validation images, for validation. By default they are an error.
        check: Bool, whether to decode every file once beforehand. Packed shards and TFDS are not checked again.
        data_dir: Folder of TensorFlow Datasets' files; by default that library's own.
        fold: Pair `(k, n)` of ints, selects the k-th of n cross-validation folds, counted from 1; see
            `ImageDataset.folds`.
        progress: Wraps the iteration over files, for a progress bar.

    Returns:
        An `ImageDataset`.

    Raises:
        UserError: The source does not exist, has fewer than two classes, or has too many undecodable files.

    Example:

    >>> data = keras_effnet.datasets.load("digits")
    >>> len(data.train), len(data.val), len(data.test)
    (1258, 270, 269)
    """
    if not 0 < real_number("val_split", val_split) < 1:
        raise UserError(f"val_split must lie between 0 and 1, got {val_split}.")
    if fold is not None and not _is_fold(fold):
        raise UserError(f"fold must be a pair (k, n) with k from 1 to n, got {fold!r}.")
    parts = read_source(
        source,
        seed=seed,
        image_size=image_size,
        max_bad_files=max_bad_files,
        skip_empty_classes=skip_empty_classes,
        check=check,
        data_dir=data_dir,
        progress=progress,
    )
    dataset = replace(
        parts.divide(val_split, seed),
        origin=_origin(source, val_split, seed, image_size, max_bad_files, skip_empty_classes, data_dir),
    )
    return dataset if fold is None else dataset.folds(fold[1])[fold[0] - 1]


def _origin(
    source: str | os.PathLike,
    val_split: float,
    seed: int,
    image_size: int,
    max_bad_files: int,
    skip_empty_classes: bool,
    data_dir: str | os.PathLike | None,
) -> dict[str, Any]:
    """Arguments of `load` that give the same data from any working directory, as plain values for YAML."""
    origin: dict[str, Any] = {"source": str(source), "seed": seed}
    if source == "digits":
        return origin
    if source == "digits-cluttered":
        return origin | {"image_size": image_size}
    if str(source).startswith(PREFIX):
        place = {"data_dir": str(Path(data_dir).resolve())} if data_dir else {}
        return origin | {"val_split": val_split} | place
    origin |= {"source": str(Path(source).resolve()), "val_split": val_split, "max_bad_files": max_bad_files}
    return origin | ({"skip_empty_classes": True} if skip_empty_classes else {})


def _is_fold(fold: Any) -> bool:
    pair = tuple(fold) if isinstance(fold, list | tuple) else ()
    return len(pair) == 2 and all(isinstance(each, Integral) for each in pair) and 1 <= pair[0] <= pair[1]


def read_source(
    source: str | os.PathLike,
    *,
    seed: int = 0,
    image_size: int = 64,
    max_bad_files: int = 10,
    skip_empty_classes: bool = False,
    check: bool = True,
    data_dir: str | os.PathLike | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> SourceData:
    """Read a source before a validation split is held out; arguments and errors as in `load`."""
    check_path("source", source)
    if data_dir is not None and not str(source).startswith(PREFIX):
        raise UserError(f"data_dir is for {PREFIX}NAME only, the folder of TensorFlow Datasets; leave it out.")
    whole_number("seed", seed, 0)
    whole_number("max_bad_files", max_bad_files, 0)
    data = _read(source, seed, image_size, _Reading(max_bad_files, check, progress, skip_empty_classes), data_dir)
    return without_empty_classes(data) if skip_empty_classes else data


class _Reading(NamedTuple):
    """Last arguments of the readers of files."""

    max_bad_files: int
    check: bool
    progress: Progress
    skip_empty_classes: bool


def _read(
    source: str | os.PathLike, seed: int, image_size: int, reading: _Reading, data_dir: str | os.PathLike | None
) -> SourceData:
    if source == "digits":
        return plain_digits(seed)
    if source == "digits-cluttered":
        return cluttered_digits(seed, image_size)
    if str(source).startswith(PREFIX):
        return read_tfds(str(source).removeprefix(PREFIX), str(data_dir) if data_dir else None, reading.progress)
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".csv":
        return read_manifest(path, *reading)
    if path.is_dir():
        return _read_directory(path, reading)
    if path.is_file():
        raise UserError(
            f"{path} is a file; data is a folder of class folders, a .csv list of images, a folder of TFRecord "
            f"shards, or one of: {', '.join(EMBEDDED)}."
        )
    if os.sep in str(source) or str(source).startswith("."):
        raise UserError(f"Folder {path} does not exist.")
    raise UserError(unknown("dataset", str(source), EMBEDDED) + " No folder of this name exists either.")


def _read_directory(folder: Path, reading: _Reading) -> SourceData:
    if index := read_index(folder):
        return read_packed(folder, index)
    if (folder / PARTIAL).is_dir():
        raise UserError(
            f"Packing {folder} was not completed; run `keras-effnet pack DATA {shlex.quote(str(folder))}` again."
        )
    if manifest := find_manifest(folder):
        return read_manifest(manifest, *reading)
    if records := find_records(folder):
        return read_records(folder, records, *reading)
    return read_folder(folder, *reading)


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    val_split: float = 0.2,
    val: tuple[np.ndarray, np.ndarray] | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
    mirror: bool = True,
    name: str = "arrays",
) -> ImageDataset:
    """Create a dataset from images in memory.

    Args:
        images: Array of shape `(N, height, width, 3)`, or `(N, height, width)` or `(N, height, width, 1)` for
            grayscale images. Values in 0..255; floats are rounded.
        labels: Int array of shape `(N,)` or `(N, 1)`, values from 0.
        class_names: Sequence of strings; by default the class numbers.
        val_split: Float in (0, 1), stratified share held out for validation if `val` is not given.
        val: Pair `(images, labels)` to validate on.
        test: Pair `(images, labels)` to test on.
        seed: Int, seed of the split.
        mirror: Bool, whether horizontal flips preserve the class; training then flips images.
        name: String.

    Returns:
        An `ImageDataset` with an empty `origin`.

    Raises:
        UserError: Shapes, values or labels are invalid.

    Example:

    >>> data = from_arrays(np.zeros((20, 8, 8, 3), "uint8"), np.arange(20) % 2, ["cat", "dog"])
    >>> len(data.train), len(data.val)
    (16, 4)
    """
    if not 0 < val_split < 1:
        raise UserError(f"val_split must lie between 0 and 1, got {val_split}.")
    given = {"train": (images, labels), "val": val, "test": test}
    splits = {
        split: Split(_pixels(pair[0], split), _labels(pair[1], len(pair[0]), split), mirror)
        for split, pair in given.items()
        if pair is not None
    }
    classes = 1 + max(int(split.labels.max()) for split in splits.values())
    names = tuple(map(str, range(classes) if class_names is None else class_names))
    if classes > len(names):
        raise UserError(f"Label {classes - 1} is beyond the {len(names)} class names (labels count from 0).")
    if len(names) < 2:
        raise UserError("The arrays have only one class; a classifier needs at least two.")
    return SourceData(name, names, splits).divide(val_split, seed)


def _pixels(images: np.ndarray, split: str) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise UserError(
            f"{split} images have shape {np.shape(images)}, expected (N, height, width, 3), or 1 channel for grayscale."
        )
    if images.dtype != np.uint8:
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 255):  # also true for NaN
            raise UserError(f"{split} images range from {low:g} to {high:g}; pixel values must be in 0..255.")
        if images.dtype.kind == "f" and 0 < high <= 1:
            raise UserError(
                f"{split} images range from {low:g} to {high:g}; expected 0..255, not 0..1 (multiply by 255)."
            )
        images = np.round(images).astype("uint8")
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


def _labels(labels: np.ndarray, count: int, split: str) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise UserError(f"{split} labels have shape {labels.shape}; pass class numbers: labels.argmax(axis=1).")
    if labels.shape != (count,):
        raise UserError(f"{split} has {count} images but labels of shape {labels.shape}.")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        found = f"start at {labels.min()}" if labels.dtype.kind in "iu" else f"are of type {labels.dtype}"
        raise UserError(f"{split} labels {found}; expected integers from 0.")
    return labels.astype("int32")
