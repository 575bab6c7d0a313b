"""Read datasets listed in a CSV file, with one row per image or one row per class. TensorFlow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_effnet.datasets.folders import Progress, without_bad_files
from keras_effnet.datasets.labels.csv_cells import is_number
from keras_effnet.datasets.labels.csv_labels import Labelled, label_rows
from keras_effnet.datasets.labels.csv_table import Row, Table, check_columns, one_line, read_table
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.datasets.listing.images import class_folders
from keras_effnet.datasets.listing.tree import displayed
from keras_effnet.datasets.segmentation.pairs import Layout, Pair, read_pairs
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import SPLIT_NAMES, Split
from keras_effnet.errors import UserError, unknown
from keras_effnet.system.typed_values import shown

MANIFEST, CLASS_LIST = "manifest.csv", "labels.csv"


class _Image(NamedTuple):
    path: str
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
    table = read_table(path)
    labelled = table.header.keys() & {"label", "index", "mask"} or table.others
    return path if "path" in table.header and labelled else None


def _split_of(table: Table, row: Row) -> str:
    value = row.values.get("split", "").lower()
    if not value:
        return "train"
    for split, names in SPLIT_NAMES.items():
        if value in names:
            return split
    choices = [name for names in SPLIT_NAMES.values() for name in names]
    raise UserError(f"{table.at(row)}: {unknown('split', one_line(value), choices)}")


def _image(table: Table, row: Row, seen: dict[str, int]) -> _Image:
    file = _file(table, row, "path", "file name")
    if (earlier := seen.setdefault(file, row.line)) != row.line:
        listed = one_line(row.values["path"])
        raise UserError(f"{table.at(row)}: {listed} is already listed on line {earlier}.")
    return _Image(file, _split_of(table, row))


def _file(table: Table, row: Row, purpose: str, noun: str) -> str:
    """Path of an existing file that a cell names."""
    if not row.values[purpose]:
        raise UserError(f"{table.at(row)}: the {noun} is missing.")
    file = table.path.parent.resolve() / row.values[purpose]
    if not _exists(file):
        raise UserError(
            f"{table.at(row)}: {one_line(str(file))} does not exist; paths are relative to {table.path.parent}."
        )
    return str(file)


def _exists(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name that is too long, or contains a NUL byte
        return False


def _read_class_list(table: Table) -> tuple[list[_Image], Labelled]:
    """Read a file with one row per class, with or without an image.

    Several rows may describe the same class, each with a file of its own.
    """
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    images, labels = [], []
    for row in table.rows:
        number = row.values["index"]
        if not is_number(number):
            raise UserError(f"{table.at(row)}: a class index must be an integer from 0, got {shown(number)}.")
        name = row.values.get("wnid") or row.values.get("name") or str(int(number))
        if names.setdefault(int(number), name) != name:
            raise UserError(
                f"{table.at(row)}: class {number} was named {one_line(names[int(number)])!r} before, "
                f"not {one_line(name)!r}."
            )
        if row.values["path"]:
            images.append(_image(table, row, seen))
            labels.append(int(number))
    missing = next(number for number in range(len(names) + 1) if number not in names)
    if missing < len(names):
        raise UserError(f"{table.path} lists no class {missing}; its indices must run from 0 without a gap.")
    ordered = tuple(names[number] for number in range(len(names)))
    return images, Labelled("classification", ordered, np.array(labels, "int32"))


def read_manifest(
    path: Path,
    max_bad_files: int,
    check: bool,
    progress: Progress,
    skip_empty_classes: bool = False,
    task: DataTask | None = None,
) -> SourceData:
    """Read a dataset listed in a CSV file.

    Either one row per image, with the columns `path`, optionally `split`, and `label`, `mask` or columns of numbers; or
    one row per class, with the columns `index`, `wnid` or `name`, and optionally `file`. A class list without splits
    and with too few images to train on is for evaluation: all its images are in `test`.

    Args:
        path: Path of the CSV file; image paths are relative to its folder.
        max_bad_files: Int, number of undecodable files allowed.
        check: Bool, whether to decode every file once.
        progress: Wraps the iteration over files, for a progress bar.
        skip_empty_classes: Bool, whether all images of a class may be undecodable.
        task: String, what the labels are for; None to follow from the file, see `labels.csv_tasks.told_task`.

    Raises:
        UserError: A column is missing, or a row has no label, an unknown split or a file that does not exist.
    """
    table = read_table(path)
    name = displayed(path.resolve().parent.name)
    if "index" in table.header and "label" not in table.header and "path" in table.header:
        images, labelled = _read_class_list(table)
    else:
        check_columns(table, ("path",))
        labelled = label_rows(table, task)
        seen: dict[str, int] = {}
        images = [_image(table, row, seen) for row in table.rows]
    if not images:
        raise UserError(f"{path} lists no images.")
    if labelled.task == "segmentation":
        pairs = [
            Pair(image.path, _file(table, row, "mask", "mask")) for row, image in zip(table.rows, images, strict=True)
        ]
        splits = {split: [pairs[place] for place in places] for split, places in _places(images).items()}
        return read_pairs(Layout(name, path.parent, splits), max_bad_files, check, progress)
    _check_names(path, labelled)
    data = SourceData(
        name,
        labelled.names,
        {
            split: Split(tuple(images[place].path for place in places), labelled.labels[places])
            for split, places in _places(images).items()
        },
        task=labelled.task,
    )
    if "label" not in table.header and "index" in table.header and _lacks_training_images(data):
        data = replace(data, splits={"test": data.splits["train"]})
    return without_bad_files(data, max_bad_files, progress, skip_empty_classes) if check else data


def _places(images: list[_Image]) -> dict[str, list[int]]:
    """Positions of the images of each split."""
    found = {split: [place for place, image in enumerate(images) if image.split == split] for split in SPLIT_NAMES}
    return {split: places for split, places in found.items() if places}


def _check_names(path: Path, labelled: Labelled) -> None:
    """Refuse fewer than two classes, and two classes or labels of the same name."""
    names = labelled.names
    if labelled.task in ("classification", "binary") and len(names) < 2:
        raise UserError(f"{path} has only one class ({one_line(names[0])}); a classifier needs at least two.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} gives two classes the same name, {one_line(twice)!r}.")


def _lacks_training_images(data: SourceData) -> bool:
    """Whether a class list is for evaluation: it has no splits, and fewer than two images of a class."""
    if data.splits.keys() != {"train"}:
        return False
    return np.bincount(data.splits["train"].labels, minlength=len(data.class_names)).min() < 2
