"""HTML page of a study's report: the text beside each chart, the table, and the template's variables.

Pure functions of `report_data`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from keras_effnet.study.protocol import Budget
from keras_effnet.study.report import charts as report_charts
from keras_effnet.study.report.charts import Data
from keras_effnet.study.report.records import figure, labelled, measured
from keras_effnet.study.summary import METRICS, Summary, answer
from keras_effnet.system import html_pages

_TEMPLATE = Path(__file__).parent / "templates/study.html.j2"


@dataclass(frozen=True)
class Section:
    """A chart with what is said of it.

    Args:
        name: String of letters: its id on the page, and its image's name.
        title: String.
        told: Function of `report_data` to the sentence under the title.
        chart: Function of `report_data` to an Altair chart.
        table: String, the table of `report_data` without whose records there is no such section.
    """

    name: str
    title: str
    told: Callable[[Data], str]
    chart: Callable[[Data], Any]
    table: str


def _pareto_told(data: Data) -> str:
    told = (
        "Each dot is a network: its accuracy after the last epoch, mean over seeds; the bar spans its seeds, the small "
        "dots are the seeds. No network beats those on the dashed line at the chosen cost: up and to the left is "
        "better. Hover for all figures, click a name to single it out."
    )
    if any(point["metric"] == "seconds_to_target" for point in data["pareto"]):
        told += f" The target accuracy is {data['target']:.1%}: networks with a seed that missed it have no such time."
    return told


SECTIONS = (
    Section("pareto", "What accuracy costs", _pareto_told, report_charts.pareto, "pareto"),
    Section(
        "scaling",
        "Diminishing returns",
        lambda data: (
            "Accuracy as a baseline is scaled along one dimension or all of them (compound), at equal MACs before "
            "rounding. Where a line flattens, more of that dimension buys less; compare figure 3 of the EfficientNet "
            "paper."
        ),
        report_charts.scaling,
        "scaling",
    ),
    Section(
        "times",
        "Did MACs become time?",
        lambda data: (
            f"Times against MACs, both as multiples of {data['networks'][0]['member']}, the cheapest in MACs. On the "
            "dashed line a multiply-add costs the same in every network; below it, more MACs were cheaper than they "
            "look, above it dearer. Lines join the compound scaling, or the family."
        ),
        report_charts.times,
        "times",
    ),
    Section(
        "curves",
        "How they learned",
        lambda data: (
            "Validation accuracy of every training, a line for each network and seed, coloured from few MACs to many. "
            "Choose the wall time to see what a dear epoch buys; click a name to single it out."
        ),
        report_charts.curves,
        "curves",
    ),
    Section(
        "law",
        "What more would buy",
        lambda data: (
            "Wrong answers as a power law of MACs, fitted to all trainings of the compound scaling. Solid where it was "
            "measured, dashed where it is extrapolated. The band holds a further training with 95% confidence, if the "
            "law holds there, which no fit can know. `keras-effnet recommend` reads budgets off it."
        ),
        report_charts.law,
        "law",
    ),
    Section(
        "roofline",
        "How far from the machine's limit",
        lambda data: (
            "Speed of each kind of layer against the work it does for each byte it moves. The line is what this "
            "machine can do at most, bound by memory where it rises and by arithmetic where it is flat; the larger a "
            "dot, the larger that kind's share of the time."
        ),
        report_charts.roofline,
        "roofline",
    ),
)


def protocol_line(protocol: Mapping[str, Any], env: Mapping[str, Any]) -> str:
    """Data, budget, seeds and processor in a line; of what is not known, nothing."""
    parts = []
    if data := dict(protocol.get("data", {})):
        source = data.pop("source", "")
        parts.append(" ".join(["Data", str(source), *(f"{name}={value}" for name, value in data.items())]))
    if "budget" in protocol:
        parts.append(f"{Budget(**protocol['budget'])} for each training")
    if seeds := protocol.get("seeds"):
        parts.append(f"{seeds} seed{'s' * (seeds > 1)}")
    if "cpu" in env:
        parts.append(str(env["cpu"]))
    return "; ".join(parts)


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{figure(seconds / size)} {unit}"
    return f"{figure(seconds)} s"


def _cards(networks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The headline figures, each with its label."""
    first, last = networks[0], networks[-1]
    best = max(networks, key=lambda network: network["accuracy"])
    trainings = sum(network["seeds"] for network in networks)
    spent = sum(network["seeds"] * network["train_seconds"] for network in networks)
    cards = [(best["shown"]["accuracy"], f"the most accurate: {best['member']}")]
    if len(networks) > 1:
        span = f"{first['member']} to {last['member']}"
        cards.append((f"x{figure(last['macs'] / first['macs'])}", f"MACs, {span}"))
        cards.append((f"x{figure(last['step_ms'] / first['step_ms'])}", "time of a training step, the same two"))
    cards.append((_duration(spent), f"of training: {len(networks)} networks, {trainings} trainings"))
    return cards


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        title: String, its header.
        value: Function of a record of `networks` to what it sorts by, None where there is nothing.
        text: Function of the same to what it says.
        words: Bool, whether it holds names, not numbers.
        bar: Bool, whether a bar shows its share of the column's largest value.
    """

    title: str
    value: Callable[[Mapping[str, Any]], Any]
    text: Callable[[Mapping[str, Any]], str]
    words: bool = False
    bar: bool = False


def _figure(value: float | None, scale: float) -> str:
    return "-" if value is None else figure(value * scale)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _columns(summaries: Sequence[Summary]) -> list[Column]:
    """Those that at least one network has a figure for."""

    def plain(field: str, title: str, words: bool = False) -> Column:
        return Column(title, lambda network: network[field], lambda network: str(network[field]), words)

    def rate(field: str, title: str) -> Column:
        return Column(title, lambda network: network[field], lambda network: figure(network[field]))

    def cost(metric: str) -> Column:
        scale = METRICS[metric].scale
        return Column(labelled(metric), lambda row: row[metric], lambda row: _figure(row[metric], scale), bar=True)

    found = [plain("member", "network", True), plain("group", "axis or family", True), plain("image_size", "pixels")]
    found.append(Column("accuracy", lambda row: row["accuracy"], lambda row: row["shown"]["accuracy"], bar=True))
    found += [plain("seeds", "seeds"), plain("epochs", "epochs"), *map(cost, measured(summaries))]
    found += [rate(f"{use}_images_per_second", f"images/s, {use}") for use in ("train", "predict")]
    if any(summary.input_bound is not None for summary in summaries):
        waited = Column("waited for data", lambda row: row["input_bound"], lambda row: _share(row["input_bound"]))
        found.append(waited)
    return found


class Header(NamedTuple):
    """Header of a column of the table; `sorted` where the page opens sorted by it."""

    title: str
    words: bool
    sorted: bool


class Cell(NamedTuple):
    """Cell of the table: the value it sorts by, its text, and the length of its bar as a share of the largest."""

    value: str
    text: str
    words: bool
    share: float | None


class Table(NamedTuple):
    """The table of all networks."""

    headers: list[Header]
    rows: list[list[Cell]]


def _cell(column: Column, network: Mapping[str, Any], largest: float | None) -> Cell:
    value = column.value(network)
    share = value / largest if value and largest else None
    return Cell("" if value is None else str(value), column.text(network), column.words, share)


def _table(networks: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    """Sorted by MACs, as `networks` are; the page can sort it by any column."""
    largest = {column: max(column.value(network) or 0 for network in networks) for column in columns if column.bar}
    headers = [Header(column.title, column.words, column.title == labelled("macs")) for column in columns]
    return Table(headers, [[_cell(column, network, largest.get(column)) for column in columns] for network in networks])


def render_page(
    name: str,
    data: Data,
    summaries: Sequence[Summary],
    specs: Mapping[Section, Any],
    *,
    library: str,
    config: Mapping[str, Any],
    protocol: Mapping[str, Any],
    env: Mapping[str, Any],
    texts: Mapping[str, str],
) -> str:
    """The HTML of a report.

    Args:
        name: String, the study's.
        data: From `report_data`; embedded once, for all charts.
        summaries: Of the same rows.
        specs: Sections, in the order shown, with the Vega-Lite specification of each.
        library: String, the JavaScript that defines `vegaEmbed`.
        config: Vega-Lite configuration for all charts.
        protocol, env: Mappings, of `protocol.yaml` and `env.json`; what they lack is left out.
        texts: Mapping, title to text, shown on demand.
    """
    charts = {section.name: spec for section, spec in specs.items()}
    return html_pages.render(
        _TEMPLATE,
        title=f"Study {name}",
        protocol_line=protocol_line(protocol, env),
        answer=answer(summaries),
        cards=_cards(data["networks"]),
        sections=[{"name": each.name, "title": each.title, "text": each.told(data)} for each in specs],
        table=_table(data["networks"], _columns(summaries)),
        failures=[{"seed": None, **row} for row in data["failures"]],
        texts=texts,
        data=data,
        charts={"config": config, "charts": charts},
        library=Markup(library.replace("</script", "<\\/script")),
    )
