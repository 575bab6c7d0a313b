"""HTML page of a report: its sections, its table, and the template's variables. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from keras_effnet.study.report.charts import Data
from keras_effnet.study.report.disagreements import Disagreements
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
        panels: Bool, whether the chart can also be drawn once for each group of networks.
    """

    name: str
    title: str
    describe: Callable[[Data], str]
    chart: Callable[[Data], Any]
    table: str
    panels: bool = False


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


class Grouping(NamedTuple):
    """A way to group networks by colour: its label, the group of each network, and the colour scale of the groups."""

    label: str
    groups: dict[str, str]
    colour: Any


def _cell(column: Column, network: Mapping[str, Any], largest: float | None) -> Cell:
    value = column.value(network)
    share = value / largest if value and largest else None
    return Cell("" if value is None else str(value), column.text(network), column.words, share)


def make_table(networks: Sequence[Mapping[str, Any]], columns: Sequence[Column], sorted_by: str) -> Table:
    """Table of records that are sorted by the column with the title `sorted_by`; the page can sort it by any other."""
    largest = {column: max(column.value(network) or 0 for network in networks) for column in columns if column.bar}
    headers = [Header(column.title, column.words, column.title == sorted_by) for column in columns]
    return Table(headers, [[_cell(column, network, largest.get(column)) for column in columns] for network in networks])


@dataclass(frozen=True)
class Report:
    """Content of a page.

    Args:
        title, subtitle: Strings.
        answer: List of sentences, the findings.
        cards: List of pairs, headline figures with their labels.
        sections: Sequence of `Section`s; those without data are left out.
        data: Mapping, name of each table to its records, embedded once for all charts. `networks` has a record for each
            row of the table, with its name, `member`.
        table: `Table` of all networks.
        table_text: String, the text above the table.
        downloads: Mapping, name of each CSV file to its text.
        groupings: Mapping, name of each field that networks can be grouped by to a `Grouping`; the first is shown.
        disagreements: `Disagreements` or None.
        failures: List of rows of failed trainings.
    """

    title: str
    subtitle: str
    answer: list[str]
    cards: list[tuple[str, str]]
    sections: Sequence[Section]
    data: Data
    table: Table
    table_text: str
    downloads: Mapping[str, str]
    groupings: Mapping[str, Grouping] = field(default_factory=dict)
    disagreements: Disagreements | None = None
    failures: Sequence[Mapping[str, Any]] = ()


def render_page(
    report: Report,
    specs: Mapping[Section, Any],
    *,
    library: str,
    config: Mapping[str, Any],
    texts: Mapping[str, str],
) -> str:
    """Render the HTML page of a report.

    Args:
        report: `Report`.
        specs: Mapping, section to its Vega-Lite specification, in display order.
        library: String, the JavaScript that defines `vegaEmbed`.
        config: Vega-Lite configuration for all charts.
        texts: Mapping, title to text, for the collapsed details at the end.

    Returns:
        String, HTML.
    """
    charts = {section.name: spec for section, spec in specs.items()}
    view = {
        "config": config,
        "charts": charts,
        "panels": [section.name for section in specs if section.panels],
        "groupings": {name: grouping._asdict() for name, grouping in report.groupings.items()},
    }
    return html_pages.render(
        _TEMPLATE,
        report=report,
        title=report.title,
        sections=[{"name": each.name, "title": each.title, "text": each.describe(report.data)} for each in specs],
        failures=[{"seed": None, **row} for row in report.failures],
        texts=texts,
        charts=view,
        library=Markup(library.replace("</script", "<\\/script")),
    )
