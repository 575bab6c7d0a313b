"""Load labelled images from a source, or take them from arrays, and split them. TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.datasets.labels.boxes import Boxes, box_names
from keras_effnet.datasets.labels.conversion import array_labels, array_pixels, array_task, check_conversion
from keras_effnet.datasets.labels.task_names import DATA_TASKS, DataTask
from keras_effnet.datasets.readers import read_source
from keras_effnet.datasets.segmentation.pairs import in_memory
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import ImageDataset, Split
from keras_effnet.datasets.tfds import PREFIX
from keras_effnet.errors import UserError, one_of, real_number


def load(
    source: str | os.PathLike,
    *,
    task: DataTask | None = None,
    val_split: float = 0.2,
    test_split: float = 0.0,
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
            `"digits"`, `"digits-cluttered"`, `"digits-scenes"`: embedded data, the last one with boxes;
            a folder with one folder per class, or with `train/` and `val/` (and `test/`) that contain class folders;
            a CSV file, or a folder with a `manifest.csv` or `labels.csv`: columns `path`, `split`, and `label` (a
            class, `a|b` for several labels, or a number), `mask`, or a column for each label (0 or 1) or value;
            a folder with images and, under the same names, PNG masks, see `segmentation.layouts`;
            boxes as COCO, YOLO, Pascal VOC or Model Maker have them, see `annotations.reading`;
            a folder of TFRecord shards, written by `keras-effnet pack` or with the features of TensorFlow's ImageNet
            scripts;
            `"tfds:name/config"`: TensorFlow Datasets.
        task: What the labels are for, one of `labels.task_names.DATA_TASKS`, such as `"multilabel"`. By default it
            follows from the data where these leave no doubt, and is classification otherwise.
        val_split: Float in (0, 1), stratified share held out for validation if the source has no validation images.
        test_split: Float in [0, 1), stratified share of the training images held out for test if the source has no
            test images; none by default.
        seed: Int, seed of the splits and of the cluttered scenes.
        image_size: Int, canvas of `"digits-cluttered"` and `"digits-scenes"` in pixels.
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
        UserError: The source does not exist, has fewer than two classes, has too many undecodable files, or holds no
            labels for the task.

    Example:

    >>> data = keras_effnet.datasets.load("digits")
    >>> len(data.train), len(data.val), len(data.test)
    (1258, 270, 269)
    """
    if not 0 < real_number("val_split", val_split) < 1:
        raise UserError(f"val_split must lie between 0 and 1, got {val_split}.")
    if not 0 <= real_number("test_split", test_split) < 1:
        raise UserError(f"test_split must be 0 or lie between 0 and 1, got {test_split}.")
    if fold is not None and not _is_fold(fold):
        raise UserError(f"fold must be a pair (k, n) with k from 1 to n, got {fold!r}.")
    parts = read_source(
        source,
        task=task,
        seed=seed,
        image_size=image_size,
        max_bad_files=max_bad_files,
        skip_empty_classes=skip_empty_classes,
        check=check,
        data_dir=data_dir,
        progress=progress,
    )
    dataset = replace(
        parts.divide(val_split, seed, test_split),
        origin=_origin(source, val_split, seed, image_size, max_bad_files, skip_empty_classes, data_dir)
        | ({"test_split": test_split} if test_split and "test" not in parts.splits else {})
        | ({"task": parts.task} if parts.task != "classification" else {}),
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
    if source in ("digits-cluttered", "digits-scenes"):
        return origin | {"image_size": image_size}
    if str(source).startswith(PREFIX):
        place = {"data_dir": str(Path(data_dir).resolve())} if data_dir else {}
        return origin | {"val_split": val_split} | place
    origin |= {"source": str(Path(source).resolve()), "val_split": val_split, "max_bad_files": max_bad_files}
    return origin | ({"skip_empty_classes": True} if skip_empty_classes else {})


def _is_fold(fold: Any) -> bool:
    pair = tuple(fold) if isinstance(fold, list | tuple) else ()
    return len(pair) == 2 and all(isinstance(each, Integral) for each in pair) and 1 <= pair[0] <= pair[1]


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray | Boxes,
    class_names: Sequence[str] | None = None,
    *,
    task: DataTask | None = None,
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
        labels: Int array of shape `(N,)` or `(N, 1)`, values from 0, of classes; an array of shape `(N, L)` of 0 and 1
            (multilabel) or of numbers (regression, also `(N,)`); or an int array of shape `(N, height, width)`, masks
            whose value 255 is ignored (segmentation); or `Boxes` (detection).
        class_names: Sequence of strings, names of the classes, labels or values; by default their numbers.
        task: String as in `load`; by default it follows from the labels where these leave no doubt.
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
    if task is not None:
        one_of("task", task, DATA_TASKS)
    kind = task or array_task(labels)
    given = {"train": (images, labels), "val": val, "test": test}
    splits = {
        split: Split(array_pixels(pair[0], split), array_labels(pair[1], len(pair[0]), split, kind), mirror)
        for split, pair in given.items()
        if pair is not None
    }
    names = None if class_names is None else tuple(map(str, class_names))
    data = SourceData(name, names or (), splits, task=kind)
    return _named(data, names).divide(val_split, seed)


def _named(data: SourceData, names: tuple[str, ...] | None) -> SourceData:
    """Give the classes, labels or values of arrays their names, and check their number."""
    if data.task == "segmentation":
        return in_memory(data)
    if data.task == "detection":
        return replace(data, class_names=box_names(names, [split.labels for split in data.splits.values()]))
    labels = [split.labels for split in data.splits.values()]
    if data.task in ("multilabel", "regression"):
        width = labels[0].shape[1]
        if any(each.shape[1] != width for each in labels) or (names and len(names) != width):
            shapes = ", ".join(str(each.shape) for each in labels)
            raise UserError(
                f"Labels of shapes {shapes} do not have one column for each of {len(names or ()) or width} names."
            )
        return replace(data, class_names=names or tuple(map(str, range(width))))
    classes = 1 + max(int(each.max()) for each in labels)
    if names is not None and classes > len(names):
        raise UserError(f"Label {classes - 1} is beyond the {len(names)} class names (labels count from 0).")
    names = names or tuple(map(str, range(classes)))
    if len(names) < 2:
        raise UserError("The arrays have only one class; a classifier needs at least two.")
    check_conversion(data.name, "classification", data.task, names)
    return replace(data, class_names=names)
