"""Images and labels of arrays, and data that are read for another task than they were made for. NumPy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.datasets.labels.masks import VALUES, Masks
from keras_effnet.datasets.labels.task_names import DataTask, may_be_mistakes
from keras_effnet.errors import UserError

logger = logging.getLogger(__name__)

LARGEST_VALUE = 1e15  # squares of values, summed over a dataset, stay far below the largest float32, 3e38
TOO_LARGE = f"{LARGEST_VALUE:g}: give the values in a larger unit, as float32 cannot hold their squares."

_HOLDS: dict[DataTask, str] = {
    "classification": "one class per image",
    "binary": "one of two classes per image",
    "multilabel": "any number of labels per image",
    "regression": "numbers",
    "segmentation": "masks",
    "detection": "boxes",
}
TAKES: dict[DataTask, str] = {
    "classification": "class folders, or a CSV file with the columns path and label",
    "binary": "two class folders, or a CSV file with the columns path and label, or with one column of 0 and 1",
    "multilabel": "a CSV file whose column label holds a|b, or with a column of 0 and 1 for each label",
    "regression": "a CSV file with the column path and columns of numbers",
    "segmentation": "a folder with images/ and, under the same names, PNG files in masks/",
    "detection": "boxes of COCO (.json), YOLO (data.yaml), Pascal VOC (Annotations/, JPEGImages/), Model Maker (.csv)",
}


def check_conversion(name: str, have: DataTask, wanted: DataTask, names: Sequence[str]) -> None:
    """Refuse data that hold no labels for a task. Two classes serve classification and binary alike.

    Args:
        name: String, name of the data.
        have: String, the task that the labels were read for.
        wanted: String, the task asked for.
        names: Names of the classes or labels.

    Raises:
        UserError: The labels are of another kind, or there are more classes than two.
    """
    if have == wanted:
        return
    if {have, wanted} == {"classification", "binary"}:
        if len(names) == 2:
            return
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(f"The task binary takes exactly two classes, but {name} has {len(names)}: {listed}.")
    raise UserError(f"{name} has {_HOLDS[have]}, but the task {wanted} takes {TAKES[wanted]}.")


def require_task(name: str, have: DataTask, wanted: str, cure: str) -> None:
    """Refuse data that were loaded for another task than a command or function works with.

    Args:
        name: String, name of the data.
        have: String, the task of the data.
        wanted: String, the task that is needed.
        cure: String, a sentence that says what to do instead.

    Raises:
        UserError: The tasks differ.
    """
    if have != wanted:
        raise UserError(f"{name} has {_HOLDS[have]} (task {have}), not labels for {wanted}. {cure}")


def array_pixels(images: np.ndarray, split: str) -> np.ndarray:
    """Images of a split from an array as RGB, checked.

    Raises:
        UserError: The shape or the values are not those of images.
    """
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


def array_task(labels: Any) -> DataTask:
    """Task of an array of labels that its shape and values leave no doubt of; otherwise classification."""
    if isinstance(labels, Boxes):
        return "detection"
    labels = np.asarray(labels)
    if labels.ndim >= 3:
        return "segmentation"
    if labels.ndim == 1 or labels.shape[1] == 1:
        return "regression" if _has_decimals(labels) else "classification"
    if not np.isin(labels, (0, 1)).all():
        if labels.dtype.kind != "f":
            return "classification"
        _warn_of_few(labels)
        return "regression"
    return "classification" if (labels.sum(axis=1) == 1).all() else "multilabel"


def _warn_of_few(labels: np.ndarray) -> None:
    """Warn if few values of an array of flags are others than 0 and 1: they may be mistakes."""
    odd = np.argwhere(~np.isin(labels, (0, 1)))
    if may_be_mistakes(len(odd), labels.size):
        row, column = odd[0].tolist()
        logger.warning(
            "labels[%d, %d] is %g, neither 0 nor 1; by %d such of %d the task is regression rather than multilabel. "
            'Correct them, or pass task="regression".',
            *(row, column, labels[row, column], len(odd), labels.size),
        )


def _has_decimals(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "f" and bool((np.isfinite(labels) & (labels != np.round(labels))).any())


def array_labels(labels: Any, count: int, split: str, task: DataTask) -> Any:
    """Labels of a split from an array, checked.

    Raises:
        UserError: The shape or the values do not fit the task.
    """
    if task == "detection":
        if not isinstance(labels, Boxes) or len(labels) != count:
            raise UserError(f"{split} labels of detection are Boxes.of_images(...) of all {count} images.")
        return labels
    labels = np.asarray(labels)
    if task == "segmentation":
        return _masks(labels, count, split)
    if task in ("multilabel", "regression"):
        return _rows(labels, count, split, task)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        odd = labels[~np.isin(labels, (0, 1))]
        value = f" and hold {odd[0]}, neither 0 nor 1" if len(odd) else ""
        raise UserError(
            f"{split} labels have shape {labels.shape}{value}; pass class numbers: labels.argmax(axis=1). For several "
            'labels per image pass task="multilabel".'
        )
    if labels.shape != (count,):
        raise UserError(f"{split} has {count} images but labels of shape {labels.shape}.")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        found = f"start at {labels.min()}" if labels.dtype.kind in "iu" else f"are of type {labels.dtype}"
        raise UserError(f"{split} labels {found}; expected integers from 0.")
    return labels.astype("int32")


def _rows(labels: np.ndarray, count: int, split: str, task: DataTask) -> np.ndarray:
    if labels.ndim == 1 and task == "regression":
        labels = labels[:, None]
    if labels.ndim != 2 or len(labels) != count:
        raise UserError(f"{split} has {count} images but labels of shape {labels.shape}, expected ({count}, L).")
    if labels.dtype.kind not in "iufb":
        raise UserError(f"{split} labels are of type {labels.dtype}; expected numbers.")
    if not np.isfinite(labels).all():
        raise UserError(f"{split} labels hold NaN or infinite values; leave out those images.")
    if np.abs(labels).max(initial=0) > LARGEST_VALUE:
        raise UserError(f"{split} labels reach {np.abs(labels).max():g}, beyond {TOO_LARGE}")
    if task == "multilabel" and not np.isin(labels, (0, 1)).all():
        raise UserError(f"{split} labels range from {labels.min():g} to {labels.max():g}; expected 0 and 1.")
    if task == "multilabel" and labels.shape[1] < 2:
        raise UserError(
            f'{split} labels have one column; for yes or no pass numbers of shape ({count},), task="binary".'
        )
    return labels.astype("float32")


def _masks(labels: np.ndarray, count: int, split: str) -> Masks:
    if labels.ndim == 4 and labels.shape[3] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3 or len(labels) != count:
        raise UserError(f"{split} masks have shape {labels.shape}, expected ({count}, height, width).")
    if labels.dtype.kind not in "iub":
        raise UserError(f"{split} masks are of type {labels.dtype}; expected integers.")
    if labels.min() < 0 or labels.max() >= VALUES:
        raise UserError(
            f"{split} masks range from {labels.min()} to {labels.max()}; expected 0 to 254, 255 is ignored."
        )
    return Masks(labels.astype("uint8"))
