"""Labels of a packed split as plain arrays. NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_effnet.datasets.labels.masks import Masks
from keras_effnet.datasets.labels.task_names import DataTask

_DTYPES = {"classification": "int32", "binary": "int32", "multilabel": "float32", "regression": "float32"}


def stored_labels(labels: Sequence[Any], split: str, task: DataTask) -> dict[str, np.ndarray]:
    """Arrays that hold the labels of a split, by name.

    Args:
        labels: Labels in the order of the records; encoded masks for segmentation.
        split: String, the beginning of the names.
        task: String, what the labels are for.
    """
    if task in _DTYPES:
        return {f"{split}_labels": np.array(labels, _DTYPES[task])}
    return {
        f"{split}_masks": np.frombuffer(b"".join(labels), "uint8"),
        f"{split}_mask_ends": np.cumsum([len(each) for each in labels], dtype="int64"),
    }


def read_labels(arrays: Mapping[str, np.ndarray], split: str, task: DataTask) -> Any:
    """Labels of a split from its arrays."""
    if task in _DTYPES:
        return arrays[f"{split}_labels"].astype(_DTYPES[task])
    contents, ends = arrays[f"{split}_masks"].tobytes(), arrays[f"{split}_mask_ends"].tolist()
    return Masks(tuple(contents[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=False)))
