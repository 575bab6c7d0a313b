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
from keras_effnet.study.statistics.answers import answer
from keras_effnet.study.statistics.looks import looks_of
from keras_effnet.study.summary import METRICS, Summary
from keras_effnet.system import html_pages

_TEMPLATE = Path(__file__).parent / "templates/study.html.j2"


@dataclass(frozen=True)
class Section:
    """Section of the page: a chart with its title and description.

    Args:
        name: String of letters: the section's id on the page and the name of its image file.
        title: String.
        describe: Function of `report_data` that returns the text under the title.
        chart: Function of `report_data` that returns an Altair chart.
        table: String, the table of `report_data` that the chart needs; the section is left out where it is empty.
    """

    name: str
    title: str
    describe: Callable[[Data], str]
    chart: Callable[[Data], Any]
    table: str


def _describe_pareto(data: Data) -> str:
    text = (
        f"Each large dot is a network: its accuracy after the last epoch on the {data['networks'][0]['split']} images, "
        "averaged over seeds. The bar spans its seeds; "
        "the small dots are the single seeds. The dashed line is the Pareto front: no other network is both cheaper "
        "and more accurate. Hover over a dot for all figures; click a name to highlight it."
    )
    if any(point["metric"] == "seconds_to_target" for point in data["pareto"]):
        text += f" The target accuracy is {data['target']:.1%}; networks with a seed that missed it have no time."
    return text


SECTIONS = (
    Section("pareto", "What accuracy costs", _describe_pareto, report_charts.pareto, "pareto"),
    Section(
        "scaling",
        "Diminishing returns",
        lambda data: (
            "Accuracy of a baseline scaled along one dimension or all of them (compound), at equal MACs before "
            "rounding. Where a line flattens, scaling that dimension further gains less; compare figure 3 of the "
            "EfficientNet paper."
        ),
        report_charts.scaling,
        "scaling",
    ),
    Section(
        "times",
        "Did MACs become time?",
        lambda data: (
            f"Time against MACs, both relative to {data['networks'][0]['member']}, the network with the fewest MACs. "
            "On the dashed line time is proportional to MACs; below it time grew more slowly than MACs, above it "
            "faster. Lines join the networks of the compound scaling, or of the family."
        ),
        report_charts.times,
        "times",
    ),
    Section(
        "curves",
        "Training curves",
        lambda data: (
            "Validation accuracy of every training, one line for each network and seed, coloured from few MACs to "
            "many. Choose wall time to see what an expensive epoch gains; click a name to highlight it."
        ),
        report_charts.curves,
        "curves",
    ),
    Section(
        "law",
        "What larger networks would gain",
        lambda data: (
            "Error rate as a power law of MACs, fitted to all trainings of the compound scaling (dots; circles are the "
            "means of their networks): solid over the measured range, dashed where it is extrapolated. The band is the "
            "95% prediction interval of one more network, averaged over as many seeds; two networks have none. It "
            "assumes that the law continues to hold, which no fit can prove. `keras-effnet recommend` uses this fit."
        ),
        report_charts.law,
        "law",
    ),
    Section(
        "roofline",
        "How far from the machine's limit",
        lambda data: (
            "Throughput of each kind of layer against its arithmetic intensity, the FLOPs for each byte moved. The "
            "line is this machine's limit: memory bandwidth where it rises, arithmetic where it is flat. The larger "
            f"a dot, the larger that kind's share of the time. {data['roofline_doubts'] or ''}"
        ).rstrip(),
        report_charts.roofline,
        "roofline",
    ),
)


def protocol_line(protocol: Mapping[str, Any], env: Mapping[str, Any]) -> str:
    """Data, budget, seeds and processor in one line; unknown parts are left out."""
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
    """Column of the table.

    Args:
        title: String, its header.
        value: Function of a record of `networks` that returns the value to sort by, None where there is none.
        text: Function of the same record that returns the cell's text.
        words: Bool, whether the cells are names rather than numbers.
        bar: Bool, whether a bar shows each value as a share of the column's largest.
    """

    title: str
    value: Callable[[Mapping[str, Any]], Any]
    text: Callable[[Mapping[str, Any]], str]
    words: bool = False
    bar: bool = False


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _columns(summaries: Sequence[Summary]) -> list[Column]:
    """The columns that have a value for at least one network."""

    def plain(field: str, title: str, words: bool = False) -> Column:
        return Column(title, lambda network: network[field], lambda network: str(network[field]), words)

    def rate(field: str, title: str) -> Column:
        return Column(title, lambda network: network[field], lambda network: figure(network[field]))

    def cost(metric: str) -> Column:
        def text(row: Mapping[str, Any]) -> str:
            return row["shown"][metric].removesuffix(f" {METRICS[metric].unit}")

        return Column(labelled(metric), lambda row: row[metric], text, bar=True)

    found = [plain("member", "network", True), plain("group", "axis or family", True), plain("image_size", "pixels")]
    split = summaries[0].split
    name = "accuracy" if split == "validation" else f"{split} accuracy"
    found.append(Column(name, lambda row: row["accuracy"], lambda row: row["shown"]["accuracy"], bar=True))
    if split != "validation":
        found.append(
            Column("validation", lambda row: row["val_accuracy"], lambda row: _share(row["val_accuracy"]), bar=True)
        )
    if any(summary.learning_rate for summary in summaries):
        found.append(rate("learning_rate", "learning rate"))
    found += [plain("seeds", "seeds"), plain("epochs", "epochs"), *map(cost, measured(summaries))]
    found += [rate(f"{use}_images_per_second", f"images/s, {use}") for use in ("train", "predict")]
    if any(summary.input_bound is not None for summary in summaries):
        found.append(Column("waiting for data", lambda row: row["input_bound"], lambda row: _share(row["input_bound"])))
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
    downloads: Mapping[str, str],
) -> str:
    """Render the HTML page of a report.

    Args:
        name: String, name of the study.
        data: From `report_data`; embedded once for all charts.
        summaries: `Summary`s of the same rows.
        specs: Mapping, section to its Vega-Lite specification, in display order.
        library: String, the JavaScript that defines `vegaEmbed`.
        config: Vega-Lite configuration for all charts.
        protocol, env: Mappings, the content of `protocol.yaml` and `env.json`; either may be empty.
        texts: Mapping, title to text, for the collapsed details at the end.
        downloads: Mapping, name of each CSV file to its text.

    Returns:
        String, HTML.
    """
    charts = {section.name: spec for section, spec in specs.items()}
    return html_pages.render(
        _TEMPLATE,
        title=f"Study {name}",
        protocol_line=protocol_line(protocol, env),
        answer=answer(summaries, looks_of(protocol)),
        cards=_cards(data["networks"]),
        sections=[{"name": each.name, "title": each.title, "text": each.describe(data)} for each in specs],
        table=_table(data["networks"], _columns(summaries)),
        failures=[{"seed": None, **row} for row in data["failures"]],
        texts=texts,
        downloads=downloads,
        data=data,
        charts={"config": config, "charts": charts},
        library=Markup(library.replace("</script", "<\\/script")),
    )
