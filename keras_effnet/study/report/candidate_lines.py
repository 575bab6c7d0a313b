"""Parallel coordinates: every candidate of a search is a line through all of its figures.

Pure Python; Altair is loaded with the chart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lazy_loader

from keras_effnet.study.report.encodings import HEIGHT, ramp

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_loader.load("altair")

Record = dict[str, Any]
_FEW = 5  # numbers that are all written beside an axis
_FAINT, _SOLID = 0.08, 0.8  # opacity of lines beside the one under the pointer, and of lines otherwise


@dataclass(frozen=True)
class Coordinate:
    """One vertical axis.

    Args:
        name: String, its title.
        values: Sequence with a value for each candidate: numbers, or names, which are evenly spaced.
        style: String, format of a number, such as `".3g"` or `".1%"`.
        logarithmic: Bool, whether numbers are spaced by their logarithms.
    """

    name: str
    values: Sequence[float | str]
    style: str = ".3g"
    logarithmic: bool = False

    def shown(self, value: float | str) -> str:
        """Format one value."""
        return value if isinstance(value, str) else format(value, self.style)

    def places(self) -> list[float]:
        """Place of each candidate on the axis, from 0 to 1; 0.5 where all are equal."""
        heights = self._heights()
        low, high = min(heights), max(heights)
        return [0.5 if low == high else (height - low) / (high - low) for height in heights]

    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of the values that are written beside the axis: all names or few numbers, else the ends."""
        texts = {at: self.shown(value) for at, value in zip(self.places(), self.values, strict=True)}
        everything = isinstance(self.values[0], str) or len(texts) <= _FEW
        return [(at, text) for at, text in sorted(texts.items()) if everything or at in (0, 1)]

    def _heights(self) -> Sequence[float]:
        numbers = [value for value in self.values if not isinstance(value, str)]
        if len(numbers) < len(self.values):
            names = sorted({str(value) for value in self.values})
            return [names.index(str(value)) for value in self.values]
        return [math.log(value) for value in numbers] if self.logarithmic else numbers


def coordinates(
    names: Sequence[str], views: Mapping[str, Sequence[Coordinate]], colour: Sequence[float], whole: Sequence[bool]
) -> tuple[list[Record], list[Record]]:
    """Tables of a chart of parallel coordinates.

    Args:
        names: Names of the candidates.
        views: Mapping, name of each choice of axes to its `Coordinate`s, from left to right.
        colour: Accuracy of each candidate.
        whole: Whether each candidate was trained to the end.

    Returns:
        Tuple of a record for each view, candidate and axis, and a record for each text beside an axis.
    """
    lines, ticks = [], []
    for view, axes in views.items():
        for place, axis in enumerate(axes):
            where = {"view": view, "axis": axis.name, "place": place}
            ticks += [where | {"at": at, "text": text} for at, text in axis.ticks()]
            rows = zip(names, axis.places(), axis.values, colour, whole, strict=True)
            lines += [
                where
                | {"member": name, "at": at, "shown": axis.shown(value), "accuracy": accuracy, "whole": to_the_end}
                for name, at, value, accuracy, to_the_end in rows
            ]
    return lines, ticks


def parallel(data: Mapping[str, Any]) -> alt.LayerChart:
    """Parallel coordinates of the tables `parallel` and `parallel_ticks`, coloured by accuracy."""
    views = list(dict.fromkeys(record["view"] for record in data["parallel"]))
    choice: dict[str, Any] = {"bind": alt.binding_select(options=views, name="Axes")} if len(views) > 1 else {}
    view = alt.param(name="view", value=views[0], **choice)
    only = alt.param(name="only_whole", value=False, bind=alt.binding_checkbox(name="Only those trained to the end"))
    least = alt.param(
        name="least", value=0, bind=alt.binding_range(min=0, max=1, step=0.01, name="Accuracy of at least")
    )
    under = alt.selection_point(name="parallel_under", fields=["member"], on="pointerover", clear="pointerout")
    kept = "datum.view === view && datum.accuracy >= least && (datum.whole || !only_whole)"
    chart = alt.Chart(alt.NamedData("parallel")).transform_filter(kept)
    labels = alt.Axis(labelAngle=-30, grid=True, labelLimit=110)
    x = alt.X("axis:N", sort=alt.SortField("place"), title=None, axis=labels)
    y = alt.Y("at:Q", axis=None, scale=alt.Scale(domain=[0, 1], padding=14))
    legend = alt.Legend(title="accuracy", orient="top", format=".0%", gradientLength=160)
    colour = alt.Color("accuracy:Q", scale=alt.Scale(range=ramp(4), zero=False, nice=False), legend=legend)
    opacity = alt.when(under).then(alt.value(_SOLID)).otherwise(alt.value(_FAINT))
    tooltip = [
        alt.Tooltip("member:N", title="candidate"),
        alt.Tooltip("axis:N"),
        alt.Tooltip("shown:N", title="value"),
        alt.Tooltip("accuracy:Q", format=".1%"),
    ]
    ticks = alt.Chart(alt.NamedData("parallel_ticks")).transform_filter("datum.view === view")
    layers = [
        chart.mark_line(strokeWidth=2, interpolate="monotone")
        .encode(x=x, y=y, color=colour, detail="member:N", order="place:Q", opacity=opacity)
        .properties(name="lines"),
        chart.mark_point(size=70, filled=True)
        .encode(x=x, y=y, color=colour, opacity=opacity, tooltip=tooltip)
        .add_params(under)
        .properties(name="values"),
        ticks.mark_text(align="left", dx=7, fontSize=10, fontWeight="bold").encode(x=x, y=y, text="text:N"),
    ]
    return alt.LayerChart(layer=layers, width="container", height=HEIGHT).add_params(view, least, only)
