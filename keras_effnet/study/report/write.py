"""A study's report: one page that holds all it needs, with charts to work with, and the same charts as pictures.

Imports `ledger`, `report_data`, `report_charts`, `report_page`, `summary`, `runs`, `errors`; Altair, vl-convert and
wandb where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.errors import UserError
from keras_effnet.study.report.charts import require_packages
from keras_effnet.study.report.page import SECTIONS, Section, render_page
from keras_effnet.study.report.records import report_data
from keras_effnet.study.summary import summarize
from keras_effnet.system.files import atomic, write_text
from keras_effnet.system.jsonl import read

REPORT = "report.html"
_STILL = {"width": 640, "scale": 2}  # pixels, and how many of the file's make one of them


def _config(ink: str, font: str) -> dict[str, Any]:
    """How charts look on a page, or on paper."""
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
    """Version that the charts are written for, as vl-convert names it."""
    import altair

    return altair.SCHEMA_VERSION.rpartition(".")[0]


def _draw(spec: Mapping[str, Any], path: Path) -> None:
    """Writes a chart as a picture, PNG or SVG by the path's suffix."""
    import vl_convert

    still = {**spec, "width": _STILL["width"]}
    options = {"vl_version": _vega_lite(), "config": {**_config("#222", "sans-serif"), "background": "white"}}
    with atomic(path) as temporary:
        if path.suffix == ".svg":
            temporary.write_text(vl_convert.vegalite_to_svg(still, **options))
        else:
            temporary.write_bytes(vl_convert.vegalite_to_png(still, scale=_STILL["scale"], **options))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _load(folder: Path) -> list[dict[str, Any]]:
    rows = read(folder / "results.jsonl")
    trained = {row["member"] for row in rows if row["kind"] == "training"}
    if not any(row["kind"] == "cost" and row["member"] in trained for row in rows):
        raise UserError(f"{folder} has no results of a trained network yet; run the study there, then report it.")
    return rows


def write_report(folder: str | Path, *, target: float | None = None, more: Sequence[Section] = ()) -> Path:
    """Writes `report.html` to a study's folder, and its charts as image files.

    The files are `pareto.png`, `scaling.png`, `times.png`, `curves.png` and `pareto.svg`.

    The page fetches nothing: it may be mailed, or opened without a network. A study that is not finished has a report
    of what is there.

    Args:
        folder: Path of a folder with `results.jsonl`; `protocol.yaml` and `env.json` are shown where they are there.
        target: Float, accuracy whose time is compared; `summary.default_target` unless given.
        more: `Section`s to show after those of `SECTIONS`.

    Returns:
        The page's path.

    Raises:
        UserError: No network there has been trained, or a package that draws is missing.

    Example:

    >>> write_report("runs/study/digits")
    """
    require_packages()
    import vl_convert

    folder = Path(folder)
    rows = _load(folder)
    data = report_data(rows, target)
    tables = {name: table for name, table in data.items() if isinstance(table, list)}
    specs = {section: section.chart(data).to_dict() for section in (*SECTIONS, *more) if data.get(section.table)}
    for section, spec in specs.items():
        _draw({**spec, "datasets": tables}, folder / f"{section.name}.png")
    pareto = next(iter(specs.values()))  # every study has one
    _draw({**pareto, "datasets": tables}, folder / "pareto.svg")

    texts = {name: _read_text(folder / name) for name in ("protocol.yaml", "env.json")}
    html = render_page(
        folder.resolve().name,
        data,
        summarize(rows, target),
        specs,
        library=vl_convert.javascript_bundle(vl_version=_vega_lite()),
        config=_config("currentColor", "system-ui, sans-serif"),
        protocol=yaml.safe_load(texts["protocol.yaml"]) or {},
        env=json.loads(texts["env.json"] or "{}"),
        texts=texts,
    )
    write_text(folder / REPORT, html)
    return folder / REPORT


def log_to_wandb(folder: str | Path, project: str) -> str:
    """Sends a study to Weights & Biases as one run: its networks as a table, its charts, its report as a file.

    What `write_report` left is sent; where there is no report yet it is written. Without a network set
    `WANDB_MODE=offline`, and send the record later with `wandb sync`.

    Args:
        folder: Path of a study's folder.
        project: String.

    Returns:
        The run's id.

    Raises:
        UserError: The package wandb is not installed, or there is nothing to report.
    """
    try:
        import wandb
    except ImportError:
        raise UserError('Weights & Biases is not installed: pip install "keras-effnet[wandb]".') from None
    folder = Path(folder)
    path = folder / REPORT if (folder / REPORT).is_file() else write_report(folder)
    networks = report_data(read(folder / "results.jsonl"))["networks"]
    columns = [name for name, value in networks[0].items() if not isinstance(value, (dict, tuple))]
    rows = [[network[column] for column in columns] for network in networks]
    pictures = {picture.stem: wandb.Image(str(picture)) for picture in sorted(folder.glob("*.png"))}
    config = yaml.safe_load(_read_text(folder / "protocol.yaml")) or {}
    run = wandb.init(project=project, name=folder.resolve().name, dir=str(folder), config=config, job_type="study")
    try:
        run.log({"networks": wandb.Table(columns=columns, data=rows), **pictures})
        report = wandb.Artifact(f"report-{run.id}", type="report")
        report.add_file(str(path))
        run.log_artifact(report)
    finally:
        run.finish()
    return run.id
