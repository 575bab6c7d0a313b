"""COCO JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_effnet.datasets.annotations.boxed_images import (
    BoxDataset,
    RawBox,
    RawImage,
    check_named_once,
    finished,
    number,
)
from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_json

_LARGEST = 2_000_000_000  # bytes; COCO's own training file has 450 million


def read_coco(path: str | Path, images: str | Path) -> BoxDataset:
    """Read boxes from a COCO JSON file.

    Args:
        path: The JSON file.
        images: Folder of the images, to which `file_name` is relative.

    Returns:
        A `BoxDataset`; classes in the order of their identifiers. Images without boxes are kept.

    Raises:
        UserError: The file is damaged, an image is missing, or an entry is incomplete; the message names it.

    Example:

    >>> read_coco("instances_val2017.json", "val2017").class_names[0]
    'person'
    """
    path, folder = Path(path), Path(images)
    content = read_json(path, limit=_LARGEST)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a COCO file: it is no JSON object.")
    categories = _numbered(content, "categories", "name", path)
    names = {key: "" if each["name"] is None else str(each["name"]) for key, each in categories.items()}
    if len(set(names.values())) < len(names):
        raise UserError(f"{path} has two categories of the same name.")
    raws = {}
    for key, each in _numbered(content, "images", "file_name", path).items():
        stated = (each.get("height"), each.get("width"))
        sized = all(type(side) is int for side in stated)
        raws[key] = RawImage(folder / str(each["file_name"]), stated if sized else None)  # type: ignore[arg-type]
    check_named_once(raws.values(), path)
    for where, each in _entries(content, "annotations", ("image_id", "category_id", "bbox"), path):
        if each["image_id"] not in raws or each["category_id"] not in names:
            raise UserError(f"{where} belongs to an image or a category that the file does not have.")
        box = each["bbox"]
        if not isinstance(box, list) or len(box) != 4:
            raise UserError(f"{where} has a bbox that is not [x, y, width, height].")
        x, y, width, height = (number(value, where) for value in box)
        name, crowd = names[each["category_id"]], each.get("iscrowd") or 0
        if crowd not in (0, 1):
            raise UserError(f"{where} has an iscrowd {str(crowd)[:40]!r} that is neither 0 nor 1.")
        raws[each["image_id"]].boxes.append(RawBox(where, name, (x, y, x + width, y + height), crowd=bool(crowd)))
    return finished(raws.values(), [names[key] for key in sorted(names)], path)


def _numbered(content: Any, part: str, key: str, path: Path) -> dict[int, dict[str, Any]]:
    """Entries of a list in the file by their identifiers."""
    found: dict[int, dict[str, Any]] = {}
    for where, each in _entries(content, part, ("id", key), path):
        if found.setdefault(each["id"], each) is not each:
            raise UserError(f"{where} repeats the identifier {each['id']}.")
    return found


def _entries(content: Any, part: str, keys: tuple[str, ...], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries of a list in the file with their places, each with the keys that it needs."""
    entries = content.get(part)
    if not isinstance(entries, list):
        raise UserError(f"{path} is not a COCO file: it has no list of {part}.")
    for index, entry in enumerate(entries):
        where = f"{path}, {part}[{index}],"
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise UserError(f"{where} lacks one of {', '.join(keys)}.")
        if any(type(entry[key]) is not int for key in keys if key.endswith("id")):
            raise UserError(f"{where} has an identifier that is not a whole number.")
        yield where, entry
