"""The names of ImageNet's classes, shipped with the package. Pure Python, no imports of the package."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


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
