"""ImageNet class names, and predictions decoded into names. numpy."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import UserError, whole_number


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """The 1000 ImageNet classes as `(wnid, name)`, in the order of training.

    WordNet ids are unique; names are not (there are two cranes and two maillots).

    Source: ILSVRC 2012; names as in `keras.applications`.
    """
    table = (Path(__file__).parent / "data/imagenet_classes.csv").read_text(encoding="utf-8")
    return tuple((wnid, name) for wnid, name in list(csv.reader(table.splitlines()))[1:])


def readable(class_names: Iterable[str]) -> tuple[str, ...]:
    """Replace ImageNet's WordNet ids by readable, unique names; other names are kept.

    Where two classes share a name, the id is appended.

    Example:

    >>> readable(["n02124075", "my_cat", "n03126707"])
    ('Egyptian cat', 'my_cat', 'crane (n03126707)')
    """
    uses = Counter(name for _, name in imagenet_classes())
    words = {wnid: name if uses[name] == 1 else f"{name} ({wnid})" for wnid, name in imagenet_classes()}
    return tuple(words[name].replace("_", " ") if name in words else name for name in class_names)


def decode_predictions(
    preds: Any, top: int = 5, class_names: Sequence[str] | None = None
) -> list[list[tuple[Any, ...]]]:
    """Decode predictions into the most probable classes of each image.

    Args:
        preds: Array of shape `(N, classes)`, probabilities.
        top: Int, number of classes per image.
        class_names: Class names in the order of training. By default the 1000 names of ImageNet.

    Returns:
        For each image a list of `(name, probability)`, most probable first; for ImageNet `(wnid, name, probability)` as
        in `keras.applications`.

    Raises:
        UserError: The numbers of classes and names differ.

    Example:

    >>> decode_predictions(np.array([[0.1, 0.9]]), top=1, class_names=["cat", "dog"])
    [[('dog', 0.9)]]
    """
    preds, top = np.asarray(preds), whole_number("top", top)
    if preds.ndim != 2:
        raise UserError(f"preds must have shape (N, classes), got {preds.shape}.")
    if class_names is None:
        if preds.shape[1] != len(imagenet_classes()):
            raise UserError(f"preds has {preds.shape[1]} classes, not ImageNet's 1000: pass class_names.")
        names: Sequence[tuple[str, ...]] = imagenet_classes()
    else:
        names = [(name,) for name in class_names]
    if preds.shape[1] != len(names):
        raise UserError(f"preds has {preds.shape[1]} classes but class_names has {len(names)}.")
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [[(*names[i], float(row[i])) for i in order] for row, order in zip(preds, best, strict=True)]
