"""`LabelKind`: what splitting, counting and identifying data need to know of a kind of labels. NumPy.

One table, `KINDS`, by task; whoever handles labels takes functions from it and never asks for the task's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.datasets.labels import boxes, masks

_RARE = 5  # images of a combination of labels below which it is pooled with others
_QUANTILES, _LEAST = 10, 10  # strata of numbers, and images in each


@dataclass(frozen=True)
class LabelKind:
    """Functions of a kind of labels. `N` is the number of images, `L` that of names: classes, labels or values.

    Args:
        noun: String, what a name of the dataset stands for; `plural`: several of them.
        strata: Function from labels to an int array `(N,)`: images that are alike, for stratified splits.
        counts: Function from labels and L to an int array `(L,)`: images of each name.
        encode: Function from labels to the chunks of bytes that identify them.
        join: Function that concatenates two labels.
        named: Bool, whether an image may lack a name, so that names may be without an image.
    """

    noun: str
    plural: str
    strata: Callable[[Any], np.ndarray]
    counts: Callable[[Any, int], np.ndarray]
    encode: Callable[[Any], Iterable[bytes]]
    join: Callable[[Any, Any], Any]
    named: bool = True

    def missing(self, labels: Any, names: Sequence[str]) -> list[str]:
        """Names of which there is no image."""
        if not self.named:
            return []
        return [name for name, count in zip(names, self.counts(labels, len(names)), strict=True) if not count]


def _concatenated(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second])


def _combinations(flags: np.ndarray) -> np.ndarray:
    """Number of the combination of labels of each image.

    A rare combination is pooled with those that share its rarest label, so that each label occurs in every part.
    """
    totals = flags.sum(axis=0)
    rows = [tuple(np.flatnonzero(row).tolist()) for row in flags]
    frequent = {row for row, count in Counter(rows).items() if count >= _RARE}

    def stratum(row: tuple[int, ...]) -> tuple[int, ...]:
        return row if row in frequent or not row else (-1, min(row, key=lambda label: (totals[label], label)))

    strata = [stratum(row) for row in rows]
    numbers = {each: number for number, each in enumerate(sorted(set(strata)))}
    return np.array([numbers[each] for each in strata], int)


def _quantiles(values: np.ndarray) -> np.ndarray:
    """Number of the quantile of each image, by the mean of its standardized values."""
    spread = values.std(axis=0)
    standard = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    order = np.lexsort((np.arange(len(values)), standard.mean(axis=1)))
    strata = np.empty(len(values), int)
    bins = max(1, min(_QUANTILES, len(values) // _LEAST))
    strata[order] = np.arange(len(values)) * bins // max(len(values), 1)
    return strata


def _all_alike(labels: Any) -> np.ndarray:
    return np.zeros(len(labels), int)


def _rarest_class(labels: boxes.Boxes) -> np.ndarray:
    """Number of the class of each image's boxes that the fewest images have, counted from 1; 0 without boxes."""
    present = labels.presence(int(labels.classes.max(initial=0)) + 1)
    totals = np.where(present, present.sum(axis=0), len(labels) + 1)
    return np.where(present.any(axis=1), totals.argmin(axis=1) + 1, 0)


def _every_image(labels: Any, names: int) -> np.ndarray:
    return np.full(names, len(labels))


_CLASS = LabelKind(
    noun="class",
    plural="classes",
    strata=lambda labels: labels,
    counts=lambda labels, names: np.bincount(labels, minlength=names),
    encode=lambda labels: [np.asarray(labels, "<i4").tobytes()],
    join=_concatenated,
)
_FLAGS = LabelKind(
    noun="label",
    plural="labels",
    strata=_combinations,
    counts=lambda labels, names: labels.sum(axis=0).astype(int),
    encode=lambda labels: [np.asarray(labels, "<f4").tobytes()],
    join=_concatenated,
)
_VALUES = LabelKind(
    noun="value",
    plural="values",
    strata=_quantiles,
    counts=_every_image,
    encode=lambda labels: [np.asarray(labels, "<f4").tobytes()],
    join=_concatenated,
    named=False,
)
_MASK = LabelKind(
    noun="class",
    plural="classes",
    strata=_all_alike,
    counts=_every_image,
    encode=masks.Masks.contents,
    join=masks.join,
    named=False,
)
_BOXES = LabelKind(
    noun="class",
    plural="classes",
    strata=_rarest_class,
    counts=lambda labels, names: labels.presence(names).sum(axis=0),
    encode=boxes.Boxes.contents,
    join=boxes.join,
    named=False,
)

KINDS: dict[str, LabelKind] = {
    "classification": _CLASS,
    "binary": _CLASS,
    "multilabel": _FLAGS,
    "regression": _VALUES,
    "segmentation": _MASK,
    "detection": _BOXES,
}
