"""Labels of a packed split: each as it is written, and all of them as plain arrays. NumPy and Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.datasets.labels.masks import Masks, encode_mask
from keras_effnet.datasets.labels.task_names import DataTask

_BOX_FIELDS = ("boxes", "classes", "crowd", "offsets", "sizes")
# From height and width of an image to the width and height to which it is downscaled; None if it is small enough.
Reduce = Callable[[int, int], tuple[int, int] | None]


@dataclass(frozen=True)
class _Storage:
    """How labels of a kind are stored.

    Args:
        one: Function from labels, the index of an image and a `Reduce` to the label of its record.
        arrays: Function from the labels of all records to arrays by name.
        read: Function from these arrays to the labels.
    """

    one: Callable[[Any, int, Reduce], Any]
    arrays: Callable[[Sequence[Any]], dict[str, np.ndarray]]
    read: Callable[[Mapping[str, np.ndarray]], Any]


def _plain(dtype: str) -> _Storage:
    return _Storage(
        one=lambda labels, place, reduce: labels[place],
        arrays=lambda labels: {"labels": np.array(labels, dtype)},
        read=lambda arrays: arrays["labels"].astype(dtype),
    )


# ------------------------------------------------------------------ masks: PNG files


def _mask(labels: Masks, place: int, reduce: Reduce) -> bytes:
    mask = labels.read(place)
    size = reduce(mask.shape[0], mask.shape[1])
    if size is not None:
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return encode_mask(mask)


def _mask_arrays(labels: Sequence[bytes]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(each) for each in labels], dtype="int64")
    return {"masks": np.frombuffer(b"".join(labels), "uint8"), "mask_ends": ends}


def _read_masks(arrays: Mapping[str, np.ndarray]) -> Masks:
    contents, ends = arrays["masks"].tobytes(), arrays["mask_ends"].tolist()
    return Masks(tuple(contents[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=False)))


# ------------------------------------------------------------------ boxes: in pixels of the image as it is written


def _boxes(labels: Boxes, place: int, reduce: Reduce) -> Boxes:
    """Boxes of one image."""
    height, width = labels.sizes[place].tolist()
    size = reduce(height, width)
    found = labels.of(place)
    if size is not None:
        scale = np.array([size[1] / height, size[0] / width])
        found, height, width = found._replace(boxes=found.boxes * np.tile(scale, 2)), size[1], size[0]
    return Boxes.of_images([found], [(height, width)])


def _box_arrays(labels: Sequence[Boxes]) -> dict[str, np.ndarray]:
    whole = Boxes.of_images([each.of(0) for each in labels], np.array([each.sizes[0] for each in labels]))
    return {f"box_{name}": getattr(whole, name) for name in _BOX_FIELDS}


def _read_boxes(arrays: Mapping[str, np.ndarray]) -> Boxes:
    return Boxes(*(arrays[f"box_{name}"] for name in _BOX_FIELDS))


# ------------------------------------------------------------------ all kinds

_STORAGES: dict[DataTask, _Storage] = {
    "classification": _plain("int32"),
    "binary": _plain("int32"),
    "multilabel": _plain("float32"),
    "regression": _plain("float32"),
    "segmentation": _Storage(_mask, _mask_arrays, _read_masks),
    "detection": _Storage(_boxes, _box_arrays, _read_boxes),
}


def record_label(labels: Any, place: int, reduce: Reduce, task: DataTask) -> Any:
    """Label of an image as it is written to a record, at the size to which the image is downscaled.

    Args:
        labels: Labels of a split.
        place: Int, index of the image.
        reduce: Function from height and width of an image to the width and height to which it is downscaled, or None.
        task: String, what the labels are for.

    Returns:
        A number or an array; the bytes of a PNG (segmentation); `Boxes` of one image (detection).
    """
    return _STORAGES[task].one(labels, place, reduce)


def stored_labels(labels: Sequence[Any], split: str, task: DataTask) -> dict[str, np.ndarray]:
    """Arrays that hold the labels of a split, by name.

    Args:
        labels: Labels as `record_label` returns them, in the order of the records.
        split: String, the beginning of the names.
        task: String, what the labels are for.
    """
    return {f"{split}_{name}": values for name, values in _STORAGES[task].arrays(labels).items()}


def read_labels(arrays: Mapping[str, np.ndarray], split: str, task: DataTask) -> Any:
    """Labels of a split from its arrays."""
    start = f"{split}_"
    return _STORAGES[task].read(
        {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}
    )
