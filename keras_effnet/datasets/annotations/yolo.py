"""YOLO: `data.yaml`, and a text file of boxes per image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_effnet.datasets.annotations.boxed_images import BoxDataset, RawBox, RawImage, finished, number
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.documents import read_lines, read_yaml

_SPLITS = ("train", "val", "test")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def read_yolo(path: str | Path, split: str = "train") -> BoxDataset:
    """Read the boxes of one split of a YOLO dataset.

    Labels lie where YOLO has them: in a folder `labels` beside `images`, or beside the image. An image without a file
    of labels has no boxes. Polygons become their bounding boxes.

    Args:
        path: The `data.yaml`, with `names` and a folder or list of images for each split.
        split: `"train"`, `"val"` or `"test"`.

    Returns:
        A `BoxDataset`.

    Raises:
        UserError: The file lacks the split or its names, an image is missing, or a line is damaged.
    """
    path = Path(path)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a YOLO dataset: it is no mapping.")
    names = _names(content.get("names"), path)
    one_of(f"split of {path.name}", split, [key for key in _SPLITS if content.get(key)])
    root = path.parent / str(content.get("path") or ".")
    given = content[split]
    places = [root / str(place) for place in (given if isinstance(given, list) else [given])]
    images = [image for place in places for image in _images(place)]
    return finished([_labelled(image, names) for image in images], names, path)


def yolo_splits(path: Path) -> list[str]:
    """The splits that a `data.yaml` has."""
    content = read_yaml(path)
    found = [split for split in _SPLITS if isinstance(content, dict) and content.get(split)]
    if not found:
        raise UserError(f"{path} is not a YOLO dataset: it has none of {', '.join(_SPLITS)}.")
    return found


def _names(names: Any, path: Path) -> list[str]:
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise UserError(f"{path} needs names: a list of different class names, or a mapping from 0, 1, ... to them.")
    return list(map(str, names))


def _images(place: Path) -> Iterator[Path]:
    if place.suffix == ".txt":
        yield from (place.parent / line.strip() for line in read_lines(place) if line.strip())
    elif place.is_dir():
        yield from sorted(each for each in place.rglob("*") if each.suffix.lower() in _SUFFIXES)
    else:
        raise UserError(f"{place} is neither a folder of images nor a .txt list of them.")


def _labels(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _labelled(image: Path, names: list[str]) -> RawImage:
    raw, file = RawImage(image), _labels(image)
    lines = read_lines(file) if file.is_file() else []
    for index, line in enumerate(lines, start=1):
        if line.strip():
            raw.boxes.append(_box(line.split(), f"{file}, line {index},", names))
    return raw


def _box(words: list[str], where: str, names: list[str]) -> RawBox:
    if not words[0].isdecimal() or int(words[0]) >= len(names):
        raise UserError(f"{where} has the class {words[0][:40]!r}; data.yaml names 0 to {len(names) - 1}.")
    values = [number(word, where) for word in words[1:]]
    if len(values) == 4:
        x, y, width, height = values
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(values) >= 6 and len(values) % 2 == 0:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    else:
        raise UserError(f"{where} has {len(words)} values instead of a class and x, y, width, height or a polygon.")
    return RawBox(where, names[int(words[0])], box, relative=True)
