"""Write the report of a study: one self-contained page with interactive charts, and the same charts as images.

Pure Python. Altair, vl-convert and wandb are loaded where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.study.measurement.held_out import read_answers
from keras_effnet.study.report.charts import require_packages
from keras_effnet.study.report.content import TABLE_TEXT, groupings, protocol_line, study_cards, study_columns
from keras_effnet.study.report.disagreements import disagreements_of
from keras_effnet.study.report.page import Report, Section, make_table, render_page
from keras_effnet.study.report.records import labelled, report_data
from keras_effnet.study.report.sections import SECTIONS
from keras_effnet.study.report.tables import csv_tables
from keras_effnet.study.results import read_complete_results
from keras_effnet.study.statistics.answers import answer
from keras_effnet.study.statistics.looks import looks_of
from keras_effnet.study.statistics.wording import worded
from keras_effnet.study.summary import summarize
from keras_effnet.system.documents import read_json, read_text, read_yaml
from keras_effnet.system.files import atomic_group, write_text
from keras_effnet.system.typed_values import conform

REPORT = "report.html"
_DETAILS = ("protocol.yaml", "search.yaml", "baseline_search.yaml", "env.json")  # shown at the end, those that exist
_IMAGE = {"width": 640, "scale": 2}  # width in CSS pixels, and pixels of the file for each of them


def _config(ink: str, font: str) -> dict[str, Any]:
    """Vega-Lite configuration that draws in one colour and font."""
    lines = {"gridColor": ink, "gridOpacity": 0.12, "domainColor": ink, "domainOpacity": 0.4, "tickColor": ink}
    text = {"labelColor": ink, "titleColor": ink, "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12}
    return {
        "font": font,
        "background": "transparent",
        "axis": {**lines, **text, "tickOpacity": 0.4},
        "legend": {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "symbolSize": 90},
        "title": {"color": ink},
        "text": {"color": ink},
        "view": {"stroke": None},
    }


def _vega_lite() -> str:
    """Version of Vega-Lite that Altair writes, in the form that vl-convert expects."""
    import altair

    return altair.SCHEMA_VERSION.rpartition(".")[0]


def _draw(spec: Mapping[str, Any], path: Path) -> None:
    """Write a chart as PNG or SVG, by the suffix of the path."""
    import vl_convert

    sized = {**spec, "width": _IMAGE["width"]}
    config, version = {**_config("#222", "sans-serif"), "background": "white"}, _vega_lite()
    if path.suffix == ".svg":
        path.write_text(vl_convert.vegalite_to_svg(sized, vl_version=version, config=config))
    else:
        png = vl_convert.vegalite_to_png(sized, vl_version=version, scale=_IMAGE["scale"], config=config)
        path.write_bytes(png)


def _read_text(path: Path) -> str:
    return read_text(path) if path.is_file() else ""


def fields_of(path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """Fields of a document in YAML or JSON; none if it is missing."""
    return conform(read(path) or {}, dict[str, Any], str(path)) if path.is_file() else {}


def _load(folder: Path) -> list[dict[str, Any]]:
    rows = read_complete_results(folder)
    trained = {row["member"] for row in rows if row["kind"] == "training"}
    if not any(row["kind"] == "cost" and row["member"] in trained for row in rows):
        raise UserError(f"{folder} has no results of a trained network yet; run the study there first.")
    return rows


def write_report(folder: str | Path, *, target: float | None = None, more: Sequence[Section] = ()) -> Path:
    """Write the report of a study: `report.html`, and each chart as an image in the same folder.

    The images are `pareto.png`, `scaling.png`, `times.png`, `curves.png`, `law.png`, `roofline.png` and `wins.png`,
    each where the study has its data, and `pareto.svg`. The page loads nothing, so it can be mailed and opened without
    a network. The report of an unfinished study covers the networks trained so far. If the trainings stored their
    answers for the held-out images, the page shows those that networks disagree on; only then are the data read, by
    TensorFlow.

    Args:
        folder: Path of a folder with `results.jsonl`; `protocol.yaml` and `env.json` are shown where they exist.
        target: Float in (0, 1), validation accuracy for the time-to-target metric; default:
            `summary.default_target`.
        more: `Section`s to show after those of `SECTIONS`.

    Returns:
        Path of the page.

    Raises:
        UserError: No network there has been trained, a plotting package is missing, or the folder cannot be written;
            an earlier report is unchanged.

    Example:

    >>> write_report("runs/study/digits")
    """
    require_packages()
    folder = Path(folder)
    rows = _load(folder)
    answers = read_answers(folder, rows)
    data, summaries = report_data(rows, target, answers), summarize(rows, target)
    protocol = fields_of(folder / "protocol.yaml", read_yaml)
    metric = summaries[0].metric
    report = Report(
        title=f"Study {folder.resolve().name}",
        subtitle=protocol_line(protocol, fields_of(folder / "env.json", read_json)),
        answer=answer(summaries, looks_of(protocol)),
        cards=[(figure, worded(label, metric)) for figure, label in study_cards(data["networks"])],
        sections=tuple(_about(section, metric) for section in (*SECTIONS, *more)),
        data=data,
        table=make_table(data["networks"], study_columns(summaries), labelled("macs")),
        table_text=worded(TABLE_TEXT, metric),
        downloads=csv_tables(rows, answers),
        groupings=groupings(data["networks"]),
        disagreements=disagreements_of(folder, answers),
        failures=data["failures"],
    )
    return write_page(folder, report)


def _about(section: Section, metric: str) -> Section:
    """A section on accuracy as one on another metric, its chart included."""
    if metric == "accuracy":
        return section
    return replace(
        section,
        title=worded(section.title, metric),
        describe=lambda data: worded(section.describe(data), metric),
        chart=lambda data: _Retitled(section.chart(data).to_dict(), metric),
    )


@dataclass(frozen=True)
class _Retitled:
    """A chart whose titles are about a metric."""

    spec: Mapping[str, Any]
    metric: str

    def to_dict(self) -> dict[str, Any]:
        """The specification of the chart."""
        return {name: self._of(name, value) for name, value in self.spec.items()}

    def _of(self, name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._of(key, each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._of(name, each) for each in value]
        return worded(value, self.metric) if name == "title" and isinstance(value, str) else value


def write_page(folder: Path, report: Report, vector: str | None = "pareto") -> Path:
    """Write a report as `report.html`, and each of its charts as a PNG image.

    Args:
        folder: Path. Its protocol, the arguments of a search, and its environment are shown where they exist.
        report: `Report`.
        vector: String or None, the chart that is also written as SVG.

    Returns:
        Path of the page.

    Raises:
        UserError: The folder cannot be written; an earlier report is unchanged.
    """
    import vl_convert

    data = report.data
    tables = {name: table for name, table in data.items() if isinstance(table, list)}
    specs = {section: section.chart(data).to_dict() for section in report.sections if data.get(section.table)}
    html = render_page(
        report,
        specs,
        library=vl_convert.javascript_bundle(vl_version=_vega_lite()),  # type: ignore[call-arg]  # its stub lacks a default
        config=_config("currentColor", "system-ui, sans-serif"),
        texts={name: _read_text(folder / name) for name in _DETAILS},
    )
    with atomic_group(folder) as staged:
        for section, spec in specs.items():
            for suffix in (".png", ".svg") if section.name == vector else (".png",):
                _draw({**spec, "datasets": tables}, staged / f"{section.name}{suffix}")
        write_text(staged / REPORT, html)
    return folder / REPORT


def log_to_wandb(folder: str | Path, project: str) -> str:
    """Log a study to Weights & Biases as one run: its networks as a table, its charts, and its report as an artifact.

    An existing report is sent as it is; otherwise the report is written first. Without a network, set
    `WANDB_MODE=offline` and send the run later with `wandb sync`.

    Args:
        folder: Path of a study's folder.
        project: String, name of the project.

    Returns:
        String, id of the run.

    Raises:
        UserError: The package wandb is not installed, or there is nothing to report.
    """
    try:
        import wandb
    except ImportError:
        raise UserError('Weights & Biases is not installed: pip install "keras-effnet[wandb]".') from None
    folder = Path(folder)
    report_path = folder / REPORT if (folder / REPORT).is_file() else write_report(folder)
    networks = report_data(read_complete_results(folder))["networks"]
    columns = [name for name, value in networks[0].items() if not isinstance(value, (dict, tuple))]
    rows = [[network[column] for column in columns] for network in networks]
    images = {path.stem: wandb.Image(str(path)) for path in sorted(folder.glob("*.png"))}
    config = fields_of(folder / "protocol.yaml", read_yaml)
    run = wandb.init(project=project, name=folder.resolve().name, dir=str(folder), config=config, job_type="study")
    try:
        run.log({"networks": wandb.Table(columns=columns, data=rows), **images})
        report = wandb.Artifact(f"report-{run.id}", type="report")
        report.add_file(str(report_path))
        run.log_artifact(report)
    finally:
        run.finish()
    return run.id
