"""Read datasets listed in a CSV file, with one row per image or one row per class. TensorFlow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_effnet.datasets.folders import Progress, without_bad_files
from keras_effnet.datasets.listing.images import class_folders
from keras_effnet.datasets.listing.tree import displayed
from keras_effnet.datasets.splits import SPLIT_NAMES, SourceData, Split
from keras_effnet.errors import UserError, closest, unknown
from keras_effnet.system.documents import read_lines, read_text
from keras_effnet.system.typed_values import shown

_DIGITS = 18  # of a class number
_SHOWN = 300  # characters of a cell that a message repeats
MANIFEST, CLASS_LIST = "manifest.csv", "labels.csv"
# Accepted column names. The first one is documented.
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
    """Find the CSV file that lists the images of a folder: `manifest.csv`, or a `labels.csv` with file names.

    A `labels.csv` beside class folders is ignored: the folders define the classes.
    """
    if (folder / MANIFEST).is_file():
        return folder / MANIFEST
    path = folder / CLASS_LIST
    if not path.is_file() or sum(bool(files) for files in class_folders(folder).images.values()) > 1:
        return None
    header, _ = _table(path)
    return path if "path" in header and header.keys() & {"label", "index"} else None


def _table(path: Path) -> tuple[dict[str, str], list[_Row]]:
    """Return purpose -> column name for the known columns, and the non-empty rows."""
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        header, rows = _cells(reader)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. Is a quote not closed?") from None
    if any("\n" in cell for row in rows for cell in row.values.values()) and _ends_in_a_quote(text, delimiter):
        raise UserError(f"{path}, line {rows[-1].line}: a quote that was opened before is not closed.")
    return header, rows


def _ends_in_a_quote(text: str, delimiter: str) -> bool:
    """Whether a quoted cell is still open at the end."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _cells(reader: csv.DictReader[str]) -> tuple[dict[str, str], list[_Row]]:
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
        given = read_text(path).partition("\n")[0].strip()[:_SHOWN]
        near = next((column for column in given.split(",") if closest(column.strip(), names)), None)
        hint = f" Did you mean {names[0]!r} instead of {near!r}?" if near else ""
        raise UserError(f"{path} has no column {' or '.join(map(repr, names[:2]))}.{hint} Its header is: {given}")


def _split_of(path: Path, row: _Row) -> str:
    value = row.values.get("split", "").lower()
    if not value:
        return "train"
    for split, names in SPLIT_NAMES.items():
        if value in names:
            return split
    choices = [name for names in SPLIT_NAMES.values() for name in names]
    raise UserError(f"{path}, line {row.line}: {unknown('split', _line(value), choices)}")


def _image(path: Path, row: _Row, label: str, seen: dict[str, int]) -> _Image:
    if not row.values["path"]:
        raise UserError(f"{path}, line {row.line}: the file name is missing.")
    file = path.parent.resolve() / row.values["path"]
    if not _exists(file):
        raise UserError(
            f"{path}, line {row.line}: {_line(str(file))} does not exist; paths are relative to {path.parent}."
        )
    if (earlier := seen.setdefault(str(file), row.line)) != row.line:
        raise UserError(f"{path}, line {row.line}: {_line(row.values['path'])} is already listed on line {earlier}.")
    return _Image(str(file), label, _split_of(path, row))


def _line(cell: str) -> str:
    """A cell for a message: on one line and not too long."""
    return " ".join(cell[:_SHOWN].split())


def _exists(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name that is too long, or contains a NUL byte
        return False


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def _classes(path: Path, labels: Iterable[str]) -> list[str]:
    """Sort class names: integers by value, other names alphabetically."""
    distinct = set(labels)
    if not all(map(_is_number, distinct)):
        return sorted(distinct)
    return [str(number) for number in sorted({int(label) for label in distinct})]


def _apply_labels_txt(path: Path, names: list[str]) -> list[str]:
    """Replace class numbers by the lines of a `labels.txt` beside the CSV file, if it exists."""
    file = path.parent / "labels.txt"
    if not file.is_file() or not all(map(_is_number, names)):
        return names
    lines = read_lines(file)
    if int(names[-1]) >= len(lines):
        raise UserError(f"{path}: label {names[-1]} is beyond the {len(lines)} classes of {file} (they count from 0).")
    return [lines[int(name)] for name in names]


def _read_images(path: Path, rows: list[_Row]) -> tuple[list[_Image], list[str], list[str]]:
    """Read a file with one row per image; returns images, the keys of their classes in order, and the class names."""
    seen: dict[str, int] = {}
    for row in rows:
        if not row.values["label"]:
            raise UserError(f"{path}, line {row.line}: no label is given for {_line(row.values['path'])}.")
    numbers = all(_is_number(row.values["label"]) for row in rows)
    keys = [str(int(row.values["label"])) if numbers else row.values["label"] for row in rows]
    images = [_image(path, row, key, seen) for row, key in zip(rows, keys, strict=True)]
    classes = _classes(path, keys)
    return images, classes, _apply_labels_txt(path, classes)


def _read_class_list(path: Path, rows: list[_Row]) -> tuple[list[_Image], list[str], list[str]]:
    """Read a file with one row per class, with or without an image; returns as `_read_images`.

    Several rows may describe the same class, each with a file of its own.
    """
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    images = []
    for row in rows:
        number = row.values["index"]
        if not _is_number(number):
            raise UserError(f"{path}, line {row.line}: a class index must be an integer from 0, got {shown(number)}.")
        name = row.values.get("wnid") or row.values.get("name") or str(int(number))
        if names.setdefault(int(number), name) != name:
            raise UserError(
                f"{path}, line {row.line}: class {number} was named {_line(names[int(number)])!r} before, "
                f"not {_line(name)!r}."
            )
        if row.values["path"]:
            images.append(_image(path, row, str(int(number)), seen))
    missing = next(number for number in range(len(names) + 1) if number not in names)
    if missing < len(names):
        raise UserError(f"{path} lists no class {missing}; its indices must run from 0 without a gap.")
    return images, [str(number) for number in range(len(names))], [names[number] for number in range(len(names))]


def _lacks_training_images(labels: np.ndarray, classes: int) -> bool:
    return np.bincount(labels, minlength=classes).min() < 2


def read_manifest(
    path: Path, max_bad_files: int, check: bool, progress: Progress, skip_empty_classes: bool = False
) -> SourceData:
    """Read a dataset listed in a CSV file.

    Either one row per image, with the columns `path`, `label` and optionally `split`, or one row per class, with the
    columns `index`, `wnid` or `name`, and optionally `file`. A class list without splits and with too few images to
    train on is for evaluation: all its images are in `test`.

    Args:
        path: Path of the CSV file; image paths are relative to its folder.
        max_bad_files: Int, number of undecodable files allowed.
        check: Bool, whether to decode every file once.
        progress: Wraps the iteration over files, for a progress bar.
        skip_empty_classes: Bool, whether all images of a class may be undecodable.

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
        raise UserError(f"{path} has only one class ({_line(names[0])}); a classifier needs at least two.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} gives two classes the same name, {_line(twice)!r}.")

    index = {key: label for label, key in enumerate(keys)}
    splits = {}
    for split in SPLIT_NAMES:
        if chosen := [image for image in images if image.split == split]:
            labels = np.array([index[image.label] for image in chosen], "int32")
            splits[split] = Split(tuple(image.path for image in chosen), labels)
    if class_list and splits.keys() == {"train"} and _lacks_training_images(splits["train"].labels, len(names)):
        splits = {"test": splits["train"]}
    data = SourceData(displayed(path.resolve().parent.name), tuple(names), splits)
    return without_bad_files(data, max_bad_files, progress, skip_empty_classes) if check else data
