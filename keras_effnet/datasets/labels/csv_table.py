"""Rows of a CSV file that lists images: known columns by purpose, the others by name. Pure Python."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from keras_effnet.datasets.listing.recognition import is_named_like_image
from keras_effnet.errors import UserError, closest
from keras_effnet.system.documents import read_text

_SHOWN = 300  # characters of a cell that a message repeats
_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
# Accepted column names. The first one is documented.
COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "split": ("split",),
    "index": ("index",),
    "wnid": ("wnid",),
    "name": ("name",),
    "mask": ("mask", "mask_path"),
}


class Row(NamedTuple):
    """Cells of a row: those of the known columns by purpose, the others by the name of their column."""

    line: int
    values: dict[str, str]
    others: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV file.

    Args:
        path: Path of the file.
        header: Dict of purpose to column name, for the known columns.
        others: Tuple of strings, the names of the other columns.
        rows: List of `Row`, those that are not empty.
    """

    path: Path
    header: dict[str, str]
    others: tuple[str, ...]
    rows: list[Row]

    def at(self, row: Row) -> str:
        """The place of a row, for the beginning of a message."""
        return f"{self.path}, line {row.line}"


def one_line(cell: str) -> str:
    """A cell for a message: on one line and not too long."""
    return " ".join(cell[:_SHOWN].split())


def read_table(path: Path) -> Table:
    """Read a CSV file separated by commas, semicolons or tabs.

    Raises:
        UserError: The file cannot be read, a quote is not closed, two columns have the same name, or a row has more
            cells than there are columns.
    """
    text = _text(path)
    first = text.partition("\n")[0]
    delimiter = max(_SEPARATORS, key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        table = _cells(path, reader)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. Is a quote not closed?") from None
    if any("\n" in cell for row in table.rows for cell in row.values.values()) and _ends_in_a_quote(text, delimiter):
        raise UserError(f"{table.at(table.rows[-1])}: a quote that was opened before is not closed.")
    return table


def _text(path: Path) -> str:
    """Text of a file, with line feeds in place of other line ends: of carriage returns alone, too."""
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n")


def _ends_in_a_quote(text: str, delimiter: str) -> bool:
    """Whether a quoted cell is still open at the end."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _cells(path: Path, reader: csv.DictReader[str]) -> Table:
    columns = [name for name in reader.fieldnames or () if name.strip()]
    given = {name.strip().lower(): name for name in columns}
    if len(given) < len(columns):
        twice = next(name for name in given if [each.strip().lower() for each in columns].count(name) > 1)
        raise UserError(f"{path} has two columns named {one_line(twice)!r}.")
    header = {
        purpose: next(given[name] for name in names if name in given)
        for purpose, names in COLUMNS.items()
        if given.keys() & set(names)
    }
    others = {name.strip(): name for name in columns if name not in header.values()}
    rows = []
    for values in reader:
        if surplus := [cell for cell in values.get(None) or () if cell.strip()]:
            raise UserError(
                f"{path}, line {reader.line_num}: {one_line(surplus[0])!r} is beyond the columns of the header. Put "
                f"cells that contain {_SEPARATORS[reader.reader.dialect.delimiter]} in quotes."
            )
        cells = {purpose: (values[column] or "").strip() for purpose, column in header.items()}
        rest = {name: (values[column] or "").strip() for name, column in others.items()}
        if any(cells.values()):
            rows.append(Row(reader.line_num, cells, rest))
    return Table(path, header, tuple(others), rows)


def check_columns(table: Table, purposes: Sequence[str] = ("path", "label")) -> None:
    """Refuse a file without one of the columns, with the closest name that it has.

    Raises:
        UserError: A column is missing.
    """
    for purpose in purposes:
        if purpose in table.header:
            continue
        names = COLUMNS[purpose]
        given = _text(table.path).partition("\n")[0].strip()[:_SHOWN]
        if not table.header and any(map(is_named_like_image, re.split(r"[,;\t]", given))):
            raise UserError(
                f"{table.path} has no header: its first line is {given}. Add a line above it that names the columns, "
                "such as path,label."
            )
        near = next((column for column in given.split(",") if closest(column.strip(), names)), None)
        hint = f" Did you mean {names[0]!r} instead of {near!r}?" if near else ""
        raise UserError(f"{table.path} has no column {' or '.join(map(repr, names[:2]))}.{hint} Its header is: {given}")
