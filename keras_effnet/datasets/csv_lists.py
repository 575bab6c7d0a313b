"""Images that a CSV file lists: one row an image, or one row a class. Imports `folders`, `splits`, `errors`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_effnet.datasets.folders import Progress, class_folders, drop_bad_files
from keras_effnet.datasets.splits import SPLIT_NAMES, SourceData, Split
from keras_effnet.errors import UserError, closest, unknown

MANIFEST, CLASS_LIST = "manifest.csv", "labels.csv"
# What a column may be called. The first name is the one that is documented.
_COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "split": ("split",),
    "index": ("index",),
    "wnid": ("wnid",),
    "name": ("name",),
}


class _Row(NamedTuple):
    line: int
    values: dict[str, str]


class _Image(NamedTuple):
    path: str
    label: str
    split: str


def find_manifest(folder: Path) -> Path | None:
    """The CSV file that describes a folder: `manifest.csv`, or a `labels.csv` that names files.

    A `labels.csv` beside class folders is taken for a note: the folders say what is what.
    """
    if (folder / MANIFEST).is_file():
        return folder / MANIFEST
    path = folder / CLASS_LIST
    if not path.is_file() or sum(bool(files) for files in class_folders(folder).values()) > 1:
        return None
    header, _ = _table(path)
    return path if "path" in header and header.keys() & {"label", "index"} else None


def _table(path: Path) -> tuple[dict[str, str], list[_Row]]:
    """The columns by what they are for -> as they are called, and the rows that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as CSV in UTF-8: {getattr(error, 'strerror', None) or error}."
        ) from None
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    given = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    header = {
        purpose: next(given[name] for name in names if name in given)
        for purpose, names in _COLUMNS.items()
        if given.keys() & set(names)
    }
    rows = []
    for values in reader:
        cells = {purpose: (values[column] or "").strip() for purpose, column in header.items()}
        if any(cells.values()):
            rows.append(_Row(reader.line_num, cells))
    return header, rows


def _check_columns(path: Path, header: dict[str, str]) -> None:
    for purpose in ("path", "label"):
        if purpose in header:
            continue
        names = _COLUMNS[purpose]
        with path.open(encoding="utf-8-sig") as file:
            given = file.readline().strip()
        near = next((column for column in given.split(",") if closest(column.strip(), names)), None)
        hint = f" Did you mean {names[0]!r} by {near!r}?" if near else ""
        raise UserError(f"{path} has no column {' or '.join(map(repr, names[:2]))}.{hint} Its header is: {given}")


def _split_of(path: Path, row: _Row) -> str:
    value = row.values.get("split", "").lower()
    if not value:
        return "train"
    for split, names in SPLIT_NAMES.items():
        if value in names:
            return split
    choices = [name for names in SPLIT_NAMES.values() for name in names]
    raise UserError(f"{path}, line {row.line}: {unknown('split', value, choices)}")


def _image(path: Path, row: _Row, label: str, seen: dict[str, int]) -> _Image:
    if not row.values["path"]:
        raise UserError(f"{path}, line {row.line}: no file is named.")
    file = path.parent.resolve() / row.values["path"]
    if not file.is_file():
        raise UserError(f"{path}, line {row.line}: {file} does not exist; paths are relative to {path.parent}.")
    if (earlier := seen.setdefault(str(file), row.line)) != row.line:
        raise UserError(f"{path}, line {row.line}: {row.values['path']} was listed on line {earlier} already.")
    return _Image(str(file), label, _split_of(path, row))


def _classes(path: Path, labels: Iterable[str]) -> list[str]:
    """Names in alphabetical order, whole numbers by size; whole numbers index `labels.txt` where there is one."""
    distinct = set(labels)
    if not all(label.isdecimal() for label in distinct):
        return sorted(distinct)
    return [str(number) for number in sorted({int(label) for label in distinct})]


def _apply_labels_txt(path: Path, names: list[str]) -> list[str]:
    """Class numbers as the lines of a `labels.txt` beside the CSV file, where there is one."""
    file = path.parent / "labels.txt"
    if not file.is_file() or not all(name.isdecimal() for name in names):
        return names
    lines = file.read_text(encoding="utf-8").splitlines()
    if int(names[-1]) >= len(lines):
        raise UserError(f"{path}: label {names[-1]} is beyond the {len(lines)} classes of {file} (they count from 0).")
    return [lines[int(name)] for name in names]


def _read_images(path: Path, rows: list[_Row]) -> tuple[list[_Image], list[str], list[str]]:
    """A row an image: images, their classes' keys in order, and the names of these."""
    seen: dict[str, int] = {}
    for row in rows:
        if not row.values["label"]:
            raise UserError(f"{path}, line {row.line}: no label is given for {row.values['path']}.")
    numbers = all(row.values["label"].isdecimal() for row in rows)
    keys = [str(int(row.values["label"])) if numbers else row.values["label"] for row in rows]
    images = [_image(path, row, key, seen) for row, key in zip(rows, keys, strict=True)]
    classes = _classes(path, keys)
    return images, classes, _apply_labels_txt(path, classes)


def _read_class_list(path: Path, rows: list[_Row]) -> tuple[list[_Image], list[str], list[str]]:
    """A row a class, with or without a file; several rows may share a class, each with its own file."""
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    images = []
    for row in rows:
        number = row.values["index"]
        if not number.isdecimal():
            raise UserError(f"{path}, line {row.line}: the index of a class is a whole number from 0, got {number!r}.")
        name = row.values.get("wnid") or row.values.get("name") or str(int(number))
        if names.setdefault(int(number), name) != name:
            raise UserError(
                f"{path}, line {row.line}: class {number} is {names[int(number)]!r} further up, not {name!r}."
            )
        if row.values["path"]:
            images.append(_image(path, row, str(int(number)), seen))
    if missing := sorted(set(range(max(names, default=-1) + 1)) - set(names)):
        raise UserError(f"{path} lists no class {missing[0]}; its indices must run from 0 without a gap.")
    return images, [str(number) for number in range(len(names))], [names[number] for number in range(len(names))]


def _lacks_training_images(labels: np.ndarray, classes: int) -> bool:
    return np.bincount(labels, minlength=classes).min() < 2


def read_manifest(path: Path, max_bad_files: int, check: bool, progress: Progress) -> SourceData:
    """Images that a CSV file lists.

    Columns `path` and `label`, and optionally `split`: one row an image. Or columns `index`, `wnid` or `name`, and
    `file`: one row a class, with the image of it if there is one. A class list with too few images to train on, and
    nothing said of splits, is there to measure a network with: all of it is `test`.

    Raises:
        UserError: A column is missing, or a row has no label, an unknown split or a file that does not exist.
    """
    header, rows = _table(path)
    class_list = "index" in header and "label" not in header and "path" in header
    if not class_list:
        _check_columns(path, header)
    images, keys, names = (_read_class_list if class_list else _read_images)(path, rows)
    if not images:
        raise UserError(f"{path} lists no images.")
    if len(names) < 2:
        raise UserError(f"{path} has one class only ({names[0]}); a classifier needs at least two.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} gives two classes the same name, {twice!r}.")

    index = {key: label for label, key in enumerate(keys)}
    splits = {}
    for split in SPLIT_NAMES:
        if chosen := [image for image in images if image.split == split]:
            labels = np.array([index[image.label] for image in chosen], "int32")
            splits[split] = Split(tuple(image.path for image in chosen), labels)
    if class_list and splits.keys() == {"train"} and _lacks_training_images(splits["train"].labels, len(names)):
        splits = {"test": splits["train"]}
    skipped = ()
    if check:
        splits, skipped = drop_bad_files(splits, max_bad_files, progress)
    return SourceData(path.resolve().parent.name, tuple(names), splits, skipped)
