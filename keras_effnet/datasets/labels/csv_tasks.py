"""The task of a CSV file, told by its cells, with a warning where a few of them decide it. Pure Python."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from typing import NamedTuple

from keras_effnet.datasets.labels.csv_cells import FLAGS, SEPARATOR, is_flag, is_number, is_real
from keras_effnet.datasets.labels.csv_table import COLUMNS, Row, Table, check_columns, one_line
from keras_effnet.datasets.labels.task_names import DataTask, may_be_mistakes

logger = logging.getLogger(__name__)

_TYPO = 0.75  # similarity to "label" from which another column is taken for a misspelt one


def told_task(table: Table) -> DataTask:
    """Task of a file that its cells leave no doubt of; otherwise classification.

    | columns | task |
    |---|---|
    | `label` with `a|b` in a cell | multilabel |
    | `label` of numbers, some with decimals | regression |
    | `mask`, and no `label` | segmentation |
    | one column of 0 and 1 | binary |
    | several columns of 0 and 1, not exactly one 1 in each row | multilabel |
    | columns of other numbers | regression |

    A warning names the first cell if a few among many decide, or one column among several.

    Raises:
        UserError: There is neither a column `label` nor a column of numbers.
    """
    if "label" in table.header:
        return _of_one_column(table)
    if "mask" in table.header:
        return "segmentation"
    columns = [[row.others[name] for row in table.rows] for name in table.others]
    if not any(any(map(is_real, column)) for column in columns) or _is_typo(table.others):
        check_columns(table)  # which raises
    return _of_columns(table)


def _is_typo(columns: Sequence[str]) -> bool:
    known = COLUMNS["label"]
    return len(columns) == 1 and bool(difflib.get_close_matches(columns[0].lower(), known, cutoff=_TYPO))


class _Cell(NamedTuple):
    row: Row
    column: str
    text: str


def _of_one_column(table: Table) -> DataTask:
    name = table.header["label"].strip()
    cells = [_Cell(row, name, row.values["label"]) for row in table.rows]
    several = [cell for cell in cells if SEPARATOR in cell.text]
    if several:
        return _decided(table, several, len(cells), "stands for several labels", "multilabel", "classification")
    words = [cell for cell in cells if not is_real(cell.text)]
    decimals = [cell for cell in cells if is_real(cell.text) and not is_number(cell.text)]
    if words and decimals:
        return _decided(table, words, len(cells), "is no number", "classification", "regression")
    if decimals:
        return _decided(table, decimals, len(cells), "is no class number", "regression", "classification")
    return "classification"


def _of_columns(table: Table) -> DataTask:
    cells = [_Cell(row, name, row.others[name]) for row in table.rows for name in table.others]
    flags: DataTask = "binary" if len(table.others) == 1 else "multilabel"
    numbers = [cell for cell in cells if not is_flag(cell.text)]
    if numbers:
        one_column = len(table.others) > 2 and len({cell.column for cell in numbers}) == 1
        return _decided(table, numbers, len(cells), "is neither 0 nor 1", "regression", flags, doubtful=one_column)
    if flags == "binary":
        return flags
    present = [(row, sum(FLAGS[cell.lower()] for cell in row.others.values())) for row in table.rows]
    uneven = [_Cell(row, "", f"{count:g}") for row, count in present if count != 1]
    if uneven:
        return _decided(table, uneven, len(present), "of its columns are 1", "multilabel", "classification")
    return "classification"


def _decided(
    table: Table,
    odd: list[_Cell],
    total: int,
    what: str,
    task: DataTask,
    otherwise: DataTask,
    *,
    doubtful: bool = False,
) -> DataTask:
    """The task that odd cells decide, with a warning if these are few or doubtful: they may be mistakes."""
    if doubtful or may_be_mistakes(len(odd), total):
        row, column, text = odd[0]
        found = f", column {one_line(column)!r}: {one_line(text)!r}" if column else f": {text}"
        reason = f"by {len(odd)} such of {total} the task is {task} rather than {otherwise}"
        cure = f"Correct or remove them, or say --task {task}."
        logger.warning("%s%s %s; %s. %s", table.at(row), found, what, reason, cure)
    return task
