"""All data of a study as CSV: its networks, trainings, epochs, layers and answers, one record a line. Pure Python."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_effnet.study.measurement.held_out import read_answers
from keras_effnet.study.report.disagreements import ByNetwork
from keras_effnet.study.results import read_complete_results
from keras_effnet.study.summary import summarize
from keras_effnet.system.files import atomic_group, write_text

Record = dict[str, Any]
_LISTS = (list, tuple, dict)


def csv_tables(rows: Sequence[Mapping[str, Any]], answers: ByNetwork | None = None) -> dict[str, str]:
    """Tables of a study as CSV text, with the units of `results.jsonl`.

    Args:
        rows: Rows of `results.jsonl`.
        answers: Mapping, network to seed to `Answers`, where trainings stored them.

    Returns:
        Dict, name of each file to its text, without empty tables: `networks.csv` has the means over seeds,
        `trainings.csv` each seed, `epochs.csv` the curves, `layers.csv` the throughput of each kind of layer,
        `learning_rates.csv` the rates that were tried, and `answers.csv` the true class of each held-out image and that
        which each training answered.
    """
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("training", "roofline", "tuning")}
    tables: dict[str, list[Record]] = {
        "networks.csv": [
            _flat(asdict(each)) | {"accuracy": each.accuracy, "spread": each.spread, "seeds": len(each.accuracies)}
            for each in summarize(rows)
        ],
        "trainings.csv": [_flat(row) for row in by_kind["training"]],
        "epochs.csv": _nested(by_kind["training"], "curve", "seed"),
        "layers.csv": _nested(by_kind["roofline"], "kinds"),
        "learning_rates.csv": _nested(by_kind["tuning"], "tried"),
        "answers.csv": _answers(answers or {}),
    }
    return {name: csv_text(records) for name, records in tables.items() if records}


def _flat(record: Mapping[str, Any]) -> Record:
    """The fields that fit into a cell."""
    return {name: value for name, value in record.items() if not isinstance(value, _LISTS) and name != "kind"}


def _nested(rows: Sequence[Mapping[str, Any]], field: str, *more: str) -> list[Record]:
    """One record for each item of a list in each row, with the network's name."""
    names = ("member", *more)
    return [{name: row[name] for name in names} | item for row in rows for item in row.get(field, ())]


def _answers(answers: ByNetwork) -> list[Record]:
    """One record for each held-out image: its number, its class, and the class that each training answered."""
    runs = {f"{member} seed {seed}": each for member, own in answers.items() for seed, each in own.items()}
    if not runs:
        return []
    columns = {"truth": next(iter(runs.values())).truth} | {name: each.predicted for name, each in runs.items()}
    rows = zip(*columns.values(), strict=True)
    return [{"image": number} | dict(zip(columns, row, strict=True)) for number, row in enumerate(rows)]


def csv_text(records: Sequence[Record]) -> str:
    """Records as CSV; a field that a record lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for record in records for name in record), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def write_csv(folder: str | Path) -> list[Path]:
    """Write the tables of a study as CSV files into its folder, see `csv_tables`.

    Args:
        folder: Path of a folder with `results.jsonl`.

    Returns:
        List of the files' paths.

    Raises:
        UserError: The results are damaged, or the folder cannot be written.

    Example:

    >>> write_csv("runs/study/digits")
    """
    folder = Path(folder)
    rows = read_complete_results(folder)
    return write_tables(folder, csv_tables(rows, read_answers(folder, rows)))


def write_tables(folder: Path, tables: Mapping[str, str]) -> list[Path]:
    """Write CSV files, given as a mapping of their names to their texts, into a folder."""
    with atomic_group(folder) as staged:
        for name, text in tables.items():
            write_text(staged / name, text)
    return [folder / name for name in tables]
