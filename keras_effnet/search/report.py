"""Report of a search: one page with parallel coordinates of its candidates, like that of a study.

Altair and vl-convert are loaded where they are used, TensorFlow to read the images that finalists disagree on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.search.baselines import BaselineResult
from keras_effnet.search.halving import SearchResult
from keras_effnet.study.measurement.held_out import read_answers
from keras_effnet.study.recommendation import LIMITS
from keras_effnet.study.report.candidate_lines import Coordinate, coordinates, parallel
from keras_effnet.study.report.charts import require_packages
from keras_effnet.study.report.content import duration, groupings, protocol_line
from keras_effnet.study.report.disagreements import disagreements_of, wins
from keras_effnet.study.report.page import Column, Report, Section, make_table
from keras_effnet.study.report.records import curve_records, figure
from keras_effnet.study.report.sections import SECTIONS
from keras_effnet.study.report.tables import csv_tables, csv_text, write_tables
from keras_effnet.study.report.write import fields_of, write_page
from keras_effnet.study.results import read_results
from keras_effnet.system.documents import read_json, read_yaml

Record = dict[str, Any]
_REUSED = [section for section in SECTIONS if section.name in ("curves", "wins")]
_TABLE_TEXT = (
    "Accuracies are means over seeds on the validation images; test accuracy is that of the trainings that reached the "
    "end. Candidates that were stopped early are not comparable with those that were trained longer."
)
_PARALLEL = (
    "Each line is a candidate, coloured by its validation accuracy after its last epoch. Where the good lines run "
    "together, they have something in common. Move the pointer over a dot to single out its candidate; raise the least "
    "accuracy, or leave out those that were stopped early."
)
# Column of a stage table -> its value, a number or a name.
_STAGES = {
    "kernel": lambda stage: stage.kernel,
    "expand ratio": lambda stage: stage.expand,
    "filters": lambda stage: stage.filters,
    "repeats": lambda stage: stage.repeats,
    "block": lambda stage: f"{stage.block}{'-se' if stage.se_ratio else ''}",
}


@dataclass(frozen=True)
class _Candidates:
    """What the reports of both searches have in common.

    Args:
        records: List of records, sorted by cost: `member`, `group` (how long it was trained), `cost`, `accuracy`,
            `tested`, `epochs`, `seeds`, and further figures of the table.
        views: Mapping, name of each choice of axes to its `Coordinate`s.
        columns: List of `Column`s after those of the name and the accuracy.
        cost: String, name of the cost with its unit.
        answer: List of sentences.
        failures: Mapping, failed training to its error.
        shown: Mapping, name of a network in `results.jsonl` to the name that the page shows, where it is another.
    """

    records: list[Record]
    views: Mapping[str, Sequence[Coordinate]]
    columns: list[Column]
    cost: str
    answer: list[str]
    failures: Mapping[str, str]
    shown: Mapping[str, str] = field(default_factory=dict)

    def called(self, member: str) -> str:
        """Name that the page shows for a network."""
        return self.shown.get(member, member)


def write_search_report(result: SearchResult | BaselineResult) -> Path:
    """Write the report of a search: `report.html`, its charts as PNG images, and its data as CSV, into its folder.

    The page shows all candidates as parallel coordinates (the constants, or the columns of the stage tables, with cost
    and accuracy), their training curves, and the images that the finalists disagree on. It loads nothing.

    Args:
        result: `SearchResult` of `grid_search`, or `BaselineResult` of `baseline_search`.

    Returns:
        Path of the page.

    Raises:
        UserError: A plotting package is missing, or the folder cannot be written; an earlier report is unchanged.

    Example:

    >>> write_search_report(search.grid_search("digits-cluttered", "runs/search/digits"))
    """
    require_packages()
    report = search_report(result)
    write_tables(result.folder, report.downloads)
    return write_page(result.folder, report, vector=None)


def search_report(result: SearchResult | BaselineResult) -> Report:
    """Content of the report of a search."""
    folder, found = result.folder, _of_constants(result) if isinstance(result, SearchResult) else _of_baselines(result)
    rows = _longest(read_results(folder))
    answers = {found.called(member): runs for member, runs in read_answers(folder, rows).items()}
    rows = [row | {"member": found.called(row["member"])} for row in rows]
    names, accuracies = ([record[key] for record in found.records] for key in ("member", "accuracy"))
    most = max(record["epochs"] for record in found.records)
    lines, ticks = coordinates(names, found.views, accuracies, [each["epochs"] == most for each in found.records])
    data = {
        "networks": found.records,
        "parallel": lines,
        "parallel_ticks": ticks,
        "curves": curve_records([row for row in rows if "curve" in row], names),
        "wins": wins(answers),
    }
    files = {"candidates.csv": csv_text(found.records)} | csv_tables(rows, answers)
    protocol = fields_of(folder / "protocol.yaml", read_yaml)
    return Report(
        title=f"Search {folder.resolve().name}",
        subtitle=protocol_line(protocol, fields_of(folder / "env.json", read_json)),
        answer=found.answer,
        cards=_cards(found.records, rows),
        sections=[Section("parallel", "All candidates", lambda _: _PARALLEL, parallel, "parallel"), *_REUSED],
        data=data,
        table=make_table(found.records, _columns(found), found.cost),
        table_text=_TABLE_TEXT,
        downloads=files,
        groupings=groupings(found.records, {"group": "epochs of training", "member": "candidate"}),
        disagreements=disagreements_of(folder, answers),
        failures=[{"member": name, "error": error} for name, error in found.failures.items()],
    )


def _longest(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last row of each training: one that continued has a row for each length."""
    trainings = sorted((dict(row) for row in rows if row["kind"] == "training"), key=lambda row: row["epochs"])
    return list({(row["member"], row["seed"]): row for row in trainings}.values())


def _record(name: str, epochs: int, seeds: int, accuracy: float, tested: Sequence[float], cost: float) -> Record:
    figures = {"accuracy": accuracy, "tested": fmean(tested) if tested else None, "cost": cost}
    return {"member": name, "group": f"{epochs} epochs", "epochs": epochs, "seeds": seeds} | figures


def _of_constants(result: SearchResult) -> _Candidates:
    ranking = sorted(result.ranking, key=lambda each: each.candidate.macs)
    records = [
        _record(each.member, each.epochs, len(each.accuracies), each.accuracy, each.tested, each.candidate.macs / 1e6)
        | vars(each.candidate.scaling)
        | {"pixels": each.candidate.spec.image_size, "ratio": each.candidate.ratio}
        for each in ranking
    ]

    def axis(title: str, field: str, style: str = ".3g") -> Coordinate:
        return Coordinate(title, [record[field] for record in records], style)

    letters = [axis(name, name) for name in ("alpha", "beta", "gamma")]
    figures = [axis("pixels", "pixels"), axis("MACs x", "ratio"), axis("accuracy", "accuracy", ".1%")]
    columns = [_number(title, title) for title in ("alpha", "beta", "gamma", "pixels")]
    return _Candidates(
        records,
        {"constants": [*letters, *figures]},
        [*columns, _number("MACs x", "ratio")],
        "MACs (million)",
        result.answer,
        result.failures,
    )


def _of_baselines(result: BaselineResult) -> _Candidates:
    finalists = {each.spec.name: each for each in (result.reference, *result.ranking)}
    tried = sorted(result.tried, key=lambda each: each.cost)
    unit, scale = ("MACs (million)", 1e-6) if result.budget.kind == "macs" else ("TFLite latency (ms)", 1.0)
    records = []
    for each in tried:
        final = finalists.get(each.spec.name)
        name = "baseline" if final is result.reference else each.spec.name
        runs, tested = (final.accuracies, list(final.tested.values())) if final else ((each.accuracy,), [])
        epochs = max(other.epochs for other in tried) if final else each.epochs
        reward = {"reward": final.reward if final else each.reward}
        records.append(_record(name, epochs, len(runs), fmean(runs), tested, each.cost * scale) | reward)
    accuracy = Coordinate("accuracy", [record["accuracy"] for record in records], ".1%")
    cost = Coordinate(unit, [record["cost"] for record in records], logarithmic=True)
    activation = Coordinate("activation", [each.spec.activation for each in tried])
    views = {name: [*_stage_axes(name, [each.spec for each in tried]), activation, cost, accuracy] for name in _STAGES}
    limit = f"The budget was {LIMITS[result.budget.kind].shown(result.budget.amount)}."
    columns = [_number("reward", "reward")]
    shown = {result.reference.spec.name: "baseline"}
    return _Candidates(records, views, columns, unit, [result.answer, limit], result.failures, shown)


def _stage_axes(column: str, specs: Sequence[ArchitectureSpec]) -> list[Coordinate]:
    """One axis for each stage, for one column of the stage table."""
    stages = zip(*(spec.stages for spec in specs), strict=True)
    return [
        Coordinate(f"stage {number}", [_STAGES[column](each) for each in own]) for number, own in enumerate(stages, 1)
    ]


def _cards(records: Sequence[Record], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    most = max(record["epochs"] for record in records)
    last = [record for record in records if record["epochs"] == most]
    best = max(last, key=lambda record: (record["seeds"], record["accuracy"]))
    spent = sum(row.get("train_seconds", 0.0) for row in rows)
    return [
        (f"{best['accuracy']:.1%}", f"the best of those with all seeds, on validation images: {best['member']}"),
        (f"{len(records)}", f"candidates, {len(last)} of them trained to the end"),
        (duration(spent), f"of training: {len(rows)} trainings"),
    ]


def _number(title: str, field: str) -> Column:
    return Column(title, lambda record: record[field], lambda record: figure(record[field]))


def _percent(title: str, field: str) -> Column:
    return Column(
        title, lambda record: record[field], lambda each: "-" if each[field] is None else f"{each[field]:.1%}", bar=True
    )


def _columns(found: _Candidates) -> list[Column]:
    shared = [
        Column("candidate", lambda record: record["member"], lambda record: record["member"], words=True),
        Column("epochs", lambda record: record["epochs"], lambda record: str(record["epochs"])),
        Column("seeds", lambda record: record["seeds"], lambda record: str(record["seeds"])),
        _percent("validation", "accuracy"),
    ]
    tested = [_percent("test", "tested")] if any(record["tested"] is not None for record in found.records) else []
    return [*shared, *tested, _number(found.cost, "cost"), *found.columns]
