"""Labels of the rows of a CSV file: a class, several labels, or numbers, in one column or in several. NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.datasets.labels.conversion import LARGEST_VALUE, TOO_LARGE
from keras_effnet.datasets.labels.csv_cells import FLAGS, SEPARATOR, is_number, is_real
from keras_effnet.datasets.labels.csv_table import Row, Table, check_columns, one_line
from keras_effnet.datasets.labels.csv_tasks import told_task
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_lines


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels of the rows of a file.

    Args:
        task: String, what they are for.
        names: Tuple of strings: classes, labels, or names of the values.
        labels: Array, an element per row, as in a `Split`.
    """

    task: DataTask
    names: tuple[str, ...]
    labels: np.ndarray


def label_rows(table: Table, task: DataTask | None) -> Labelled:
    """Read the labels of a file with one row per image.

    Args:
        table: `Table`.
        task: String, what the labels are for; None to follow from the cells, see `csv_tasks.told_task`.

    Raises:
        UserError: A column is missing, or a cell does not fit the task; names the line.
    """
    return _READERS[task or told_task(table)](table)


# ------------------------------------------------------------------ classes


def class_order(labels: Iterable[str]) -> list[str]:
    """Sort class names: integers by value, other names alphabetically."""
    distinct = set(labels)
    if not all(map(is_number, distinct)):
        return sorted(distinct)
    return [str(number) for number in sorted({int(label) for label in distinct})]


def apply_labels_txt(path: Path, names: list[str]) -> list[str]:
    """Replace class numbers by the lines of a `labels.txt` beside the CSV file, if it exists."""
    file = path.parent / "labels.txt"
    if not names or not file.is_file() or not all(map(is_number, names)):
        return names
    lines = read_lines(file)
    if int(names[-1]) >= len(lines):
        raise UserError(f"{path}: label {names[-1]} is beyond the {len(lines)} classes of {file} (they count from 0).")
    return [lines[int(name)] for name in names]


def _classes(table: Table) -> Labelled:
    if "label" not in table.header and len(table.others) > 1:
        return _exclusive(table)
    check_columns(table)
    for row in table.rows:
        if not row.values["label"]:
            raise UserError(f"{table.at(row)}: no label is given for {one_line(row.values['path'])}.")
    numbers = all(is_number(row.values["label"]) for row in table.rows)
    keys = [str(int(row.values["label"])) if numbers else row.values["label"] for row in table.rows]
    classes = class_order(keys)
    index = {key: label for label, key in enumerate(classes)}
    labels = np.array([index[key] for key in keys], "int32")
    return Labelled("classification", tuple(apply_labels_txt(table.path, classes)), labels)


def _exclusive(table: Table) -> Labelled:
    """Classes as columns of 0 and 1, with one 1 in each row."""
    flags = _matrix(table, _flag)
    for row, cells in zip(table.rows, flags, strict=True):
        if cells.sum() != 1:
            raise UserError(
                f"{table.at(row)}: {cells.sum():g} of the columns are 1, but an image has exactly one class; "
                "--task multilabel is for any number of them."
            )
    return Labelled("classification", table.others, flags.argmax(axis=1).astype("int32"))


def _binary(table: Table) -> Labelled:
    if "label" in table.header or len(table.others) != 1:
        return _classes(table)
    (name,) = table.others
    return Labelled("binary", (f"not {name}", name), _matrix(table, _flag)[:, 0].astype("int32"))


# ------------------------------------------------------------------ labels and values


def _labels(table: Table) -> Labelled:
    if "label" not in table.header:
        if not table.others:
            check_columns(table)
        return _several(table, table.others, _matrix(table, _flag))
    cells = [[part.strip() for part in row.values["label"].split(SEPARATOR)] for row in table.rows]
    given = [{part for part in parts if part} for parts in cells]  # an empty cell: none of the labels
    names = class_order(name for each in given for name in each)
    if all(map(is_number, names)):
        given = [{str(int(name)) for name in each} for each in given]
    flags = np.array([[name in each for name in names] for each in given], "float32")
    return _several(table, apply_labels_txt(table.path, names), flags)


def _several(table: Table, names: Sequence[str], flags: np.ndarray) -> Labelled:
    if len(names) < 2:
        found = f"only one label ({one_line(names[0])})" if names else "no labels"
        raise UserError(f"{table.path} has {found}; several are needed. For yes or no, use --task binary.")
    return Labelled("multilabel", tuple(names), flags)


def _values(table: Table) -> Labelled:
    if "label" not in table.header:
        if not table.others:
            check_columns(table)
        return Labelled("regression", table.others, _matrix(table, _number))
    name = table.header["label"].strip()
    values = [[_number(table, row, name, row.values["label"])] for row in table.rows]
    return Labelled("regression", (name,), np.array(values, "float32"))


def _masks(table: Table) -> Labelled:
    check_columns(table, ("path", "mask"))
    return Labelled("segmentation", (), np.zeros(len(table.rows), "int32"))


def _matrix(table: Table, read: Callable[[Table, Row, str, str], float]) -> np.ndarray:
    cells = [[read(table, row, name, row.others[name]) for name in table.others] for row in table.rows]
    return np.array(cells, "float32").reshape(len(table.rows), len(table.others))


def _flag(table: Table, row: Row, column: str, cell: str) -> float:
    if cell.lower() not in FLAGS:
        raise UserError(
            f"{table.at(row)}, column {one_line(column)!r}: {one_line(cell)!r} is neither 0 nor 1. Correct it, or "
            "remove the column if it is not a label."
        )
    return FLAGS[cell.lower()]


def _number(table: Table, row: Row, column: str, cell: str) -> float:
    if is_real(cell):
        if abs(float(cell)) > LARGEST_VALUE:
            raise UserError(f"{table.at(row)}, column {one_line(column)!r}: {one_line(cell)} is beyond {TOO_LARGE}")
        return float(cell)
    cure = "write decimals with a point" if is_real(cell.replace(",", ".")) else "correct it or leave out the row"
    found = f"{one_line(cell)!r} is not a finite number" if cell else "the number is missing"
    raise UserError(
        f"{table.at(row)}, column {one_line(column)!r}: {found}; {cure}, or remove the column if it is not a value."
    )


_READERS: dict[DataTask, Callable[[Table], Labelled]] = {
    "classification": _classes,
    "binary": _binary,
    "multilabel": _labels,
    "regression": _values,
    "segmentation": _masks,
}
