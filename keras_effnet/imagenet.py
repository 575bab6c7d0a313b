"""The names of ImageNet's classes, shipped with the package. Pure Python, no imports of the package."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from keras_effnet.errors import UserError


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """ImageNet's 1000 classes in the order of training, as `(wnid, name)`.

    The WordNet ids are unique; the names are not: there are two cranes and two maillots.

    Source: ILSVRC 2012, whose classes are synsets of WordNet; spelt as in `keras.applications`.
    """
    table = (Path(__file__).parent / "data/imagenet_classes.csv").read_text(encoding="utf-8")
    return tuple((wnid, name) for wnid, name in list(csv.reader(table.splitlines()))[1:])


def readable(class_names: Iterable[str]) -> tuple[str, ...]:
    """Class names as people read them: ImageNet's WordNet ids become words, other names stay.

    The words are unique: where two classes share a name, the id is added.

    Example:

    >>> readable(["n02124075", "my_cat", "n03126707"])
    ('Egyptian cat', 'my_cat', 'crane (n03126707)')
    """
    uses = Counter(name for _, name in imagenet_classes())
    words = {wnid: name if uses[name] == 1 else f"{name} ({wnid})" for wnid, name in imagenet_classes()}
    return tuple(words[name].replace("_", " ") if name in words else name for name in class_names)


def decode_predictions(preds, top: int = 5, class_names: list[str] | tuple[str, ...] | None = None):
    """Names the most probable classes of each image.

    Args:
        preds: Array of shape `(N, classes)`, probabilities.
        top: Int, how many classes an image.
        class_names: One name a class, in the order of training. Without it `preds` must have ImageNet's 1000 classes.

    Returns:
        A list for each image of `(name, probability)`, best first; for ImageNet `(wnid, name, probability)` as
        `keras.applications` does.

    Raises:
        UserError: The number of classes and of names differ.

    Example:

    >>> decode_predictions(np.array([[0.1, 0.9]]), top=1, class_names=["cat", "dog"])
    [[('dog', 0.9)]]
    """
    preds = np.asarray(preds)
    if preds.ndim != 2:
        raise UserError(f"preds must have shape (N, classes), got {preds.shape}.")
    if class_names is None:
        if preds.shape[1] != len(imagenet_classes()):
            raise UserError(f"preds has {preds.shape[1]} classes, not ImageNet's 1000: pass class_names.")
        names = imagenet_classes()
    else:
        names = [(name,) for name in class_names]
    if preds.shape[1] != len(names):
        raise UserError(f"preds has {preds.shape[1]} classes but class_names has {len(names)}.")
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [[(*names[i], float(row[i])) for i in order] for row, order in zip(preds, best, strict=True)]
