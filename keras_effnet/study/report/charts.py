"""Altair charts of a study's report.

Each function takes `report_data` and returns a chart that refers to its tables by name, so that a page embeds the data
once for all charts. Pure Python; Altair is loaded with the first chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import lazy_loader

from keras_effnet.errors import UserError
from keras_effnet.study.report.encodings import (
    COLOURS,
    GREY,
    HEIGHT,
    accuracy_axis,
    by_group,
    by_order,
    distinct,
    faded,
    legend_above,
    logarithmic_axis,
    picked_in_legend,
    title_below,
)
from keras_effnet.study.report.records import labelled
from keras_effnet.study.statistics.clock_noise import CLOCKS
from keras_effnet.study.summary import METRICS

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_loader.load("altair")

Data = Mapping[str, Any]
_PACKAGES = {"altair": "altair", "vl_convert": "vl-convert-python"}


def require_packages() -> None:
    """Raise a `UserError` that names the plotting packages that are not installed."""
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"A report needs {' and '.join(missing)}: pip install 'keras-effnet[study]'.")


def _network_tooltip(data: Data) -> list[alt.Tooltip]:
    """Tooltip with all figures of a network; the chart must look them up, see `_with_figures`."""
    has = distinct(data["pareto"], "metric")
    labels = {"accuracy": "accuracy"} | {metric: METRICS[metric].label for metric in METRICS if metric in has}
    figures = [alt.Tooltip(f"shown.{name}:N", title=label) for name, label in labels.items()]
    size = alt.Tooltip("image_size:Q", title="image, pixels")
    return [alt.Tooltip("member:N", title="network"), figures[0], alt.Tooltip("seeds:Q"), size, *figures[1:]]


def _with_figures(chart: alt.Chart) -> alt.Chart:
    networks = alt.LookupData(data=alt.NamedData("networks"), key="member", fields=["shown", "seeds", "image_size"])
    return chart.transform_lookup(lookup="member", from_=networks)


def _front(chart: alt.Chart, x: alt.X) -> list[alt.Chart]:
    """Dashed line along the Pareto front, and the names of its networks."""
    front = chart.transform_filter("datum.front")
    # Names go above and left of the front, where there are no marks, except at the left edge, which has no room.
    at_edge = "scale('x', datum.cost) < 100"
    align, offset = alt.ExprRef(f"{at_edge} ? 'left' : 'right'"), alt.ExprRef(f"{at_edge} ? 9 : -9")
    line = front.mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=GREY).encode(order="cost:Q")
    names = front.mark_text(fontSize=11, align=align, dx=offset, dy=offset).encode(text="member:N")
    return [
        line.encode(x=x, y=accuracy_axis()).properties(name="front"),
        names.encode(x=x, y=accuracy_axis()).properties(name="labels"),
    ]


def pareto(data: Data) -> alt.LayerChart:
    """Accuracy against a selectable cost, with the Pareto front."""
    titles = {name: labelled(name) for name in distinct(data["pareto"], "metric")}
    choice = alt.binding_select(options=list(titles), labels=[METRICS[name].label for name in titles], name="Cost")
    metric = alt.param(name="metric", value=next(iter(titles)), bind=choice)
    picked, chosen = picked_in_legend("pareto", "group"), "datum.metric === metric"
    chart = alt.Chart(alt.NamedData("pareto")).transform_filter(chosen)
    dots = alt.Chart(alt.NamedData("seeds")).transform_filter(chosen).mark_point(size=14, filled=True, fillOpacity=0.6)
    x = logarithmic_axis(alt.X, "cost", None)
    shared = {"x": x, "color": by_group(data["pareto"]), "opacity": faded(picked)}
    line, names = _front(chart, x)
    layers = [
        line,
        chart.mark_rule(strokeWidth=1.5, strokeOpacity=0.6)
        .encode(y=accuracy_axis("low"), y2="high:Q", **shared)
        .add_params(picked),
        *([dots.encode(y=accuracy_axis(), **shared).properties(name="seeds")] if data["seeds"] else []),
        _with_figures(chart)
        .mark_point(size=110, filled=True)
        .encode(y=accuracy_axis(), tooltip=_network_tooltip(data), **shared)
        .properties(name="means"),
        names,
    ]
    title = title_below(titles, "metric")
    return alt.LayerChart(layer=layers, title=title, width="container", height=HEIGHT).add_params(metric)


def scaling(data: Data) -> alt.LayerChart:
    """Accuracy against MACs with one line for each scaling axis, as in figure 3 of the EfficientNet paper."""
    picked = picked_in_legend("scaling", "axis")
    chart = alt.Chart(alt.NamedData("scaling")).transform_calculate(millions="datum.macs / 1e6")
    x, colour = logarithmic_axis(alt.X, "millions", "MACs (million)"), by_group(data["scaling"], "axis")
    line = {"x": x, "color": colour, "opacity": faded(picked)}
    layers = [
        chart.mark_line(strokeWidth=2)
        .encode(y=accuracy_axis(), detail="model:N", order="macs:Q", **line)
        .add_params(picked),
        chart.mark_rule(strokeWidth=1.5).encode(y=accuracy_axis("low"), y2="high:Q", **line),
        _with_figures(chart.properties(name="scaled"))
        .mark_point(size=70, filled=True)
        .encode(y=accuracy_axis(), tooltip=_network_tooltip(data), **line),
    ]
    return alt.LayerChart(layer=layers, width="container", height=HEIGHT)


def times(data: Data) -> alt.LayerChart:
    """Relative time against relative MACs; on the diagonal time is proportional to MACs."""
    picked = picked_in_legend("times", "clock")
    chart = alt.Chart(alt.NamedData("times"))
    ticks = {"format": "~g"}
    x = logarithmic_axis(alt.X, "macs_ratio", "MACs, relative to the smallest network", **ticks)
    y = logarithmic_axis(alt.Y, "time_ratio", "time, relative to the smallest network", **ticks)
    names = [METRICS[clock].label for clock in CLOCKS]
    range_ = [COLOURS["compound"], COLOURS["depth"], COLOURS["width"]]
    colour = alt.Color("clock:N", scale=alt.Scale(domain=names, range=range_), legend=legend_above(names))
    tooltip = [
        alt.Tooltip("member:N", title="network"),
        alt.Tooltip("clock:N", title="time of"),
        alt.Tooltip("macs_ratio:Q", title="MACs x", format=".2f"),
        alt.Tooltip("time_ratio:Q", title="time x", format=".2f"),
    ]
    diagonal = alt.Chart(alt.NamedData("diagonal"), name="diagonal").mark_line(strokeDash=[5, 4], color=GREY)
    end = alt.Chart(alt.NamedData("diagonal")).transform_filter("datum.ratio > 1")
    shared = {"x": x, "y": y, "color": colour, "opacity": faded(picked)}
    layers = [
        diagonal.encode(x="ratio:Q", y="ratio:Q"),
        end.mark_text(align="right", dy=-10, dx=-12).encode(x="ratio:Q", y="ratio:Q", text=alt.value("time = MACs")),
        chart.transform_filter("datum.lined")
        .mark_line(strokeWidth=2)
        .encode(order="macs_ratio:Q", **shared)
        .add_params(picked),
        chart.mark_point(size=60, filled=True).encode(tooltip=tooltip, **shared).properties(name="ratios"),
    ]
    return alt.LayerChart(layer=layers, width="container", height=HEIGHT)


def curves(data: Data) -> alt.LayerChart:
    """Validation accuracy of each training, by epoch or by wall time."""
    titles = {"epoch": "epoch", "elapsed": "wall time of training (s)"}
    choice = alt.binding_radio(options=list(titles), labels=["epoch", "wall time"], name="By")
    along = alt.param(name="along", value="epoch", bind=choice)
    picked = picked_in_legend("curves", "member")
    chart = alt.Chart(alt.NamedData("curves")).transform_calculate(at="datum[along]")
    x = alt.X("at:Q", title=None, scale=alt.Scale(zero=False, nice=False, padding=12), axis=alt.Axis(tickCount=8))
    colour = by_order(distinct(data["curves"], "member"), "member")
    shared = {"x": x, "y": accuracy_axis("val_accuracy", "validation accuracy"), "color": colour}
    tooltip = [
        alt.Tooltip("member:N", title="network"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("elapsed:Q", title="seconds", format=",.1f"),
        alt.Tooltip("val_accuracy:Q", title="accuracy", format=".1%"),
    ]
    layers = [
        chart.mark_line(strokeWidth=1.8)
        .encode(detail="seed:N", order="epoch:Q", opacity=faded(picked), **shared)
        .properties(name="runs")
        .add_params(picked),
        chart.mark_point(size=26, filled=True)
        .encode(opacity=faded(picked), tooltip=tooltip, **shared)
        .properties(name="epochs"),
    ]
    title = title_below(titles, "along")
    return alt.LayerChart(layer=layers, title=title, width="container", height=HEIGHT).add_params(along)


def law(data: Data) -> alt.LayerChart:
    """Power law of the compound scaling, its prediction interval, and the networks it was fitted to."""
    x = logarithmic_axis(alt.X, "millions", "MACs (million)", format="~g")
    chart = alt.Chart(alt.NamedData("law")).transform_calculate(millions="datum.macs / 1e6")
    band = chart.mark_area(opacity=0.15, color=COLOURS["compound"]).encode(x=x, y=accuracy_axis("low"), y2="high:Q")
    known, beyond = (
        chart.transform_filter(f"datum.extrapolated === {value}").encode(x=x, y=accuracy_axis())
        for value in ("false", "true")
    )
    known = known.mark_line(color=COLOURS["compound"], strokeWidth=2)
    beyond = beyond.mark_line(color=COLOURS["compound"], strokeWidth=2, strokeDash=[5, 4])
    millions = {"millions": "datum.macs / 1e6"}
    trainings = (
        alt.Chart(alt.NamedData("fitted"))
        .transform_calculate(**millions)
        .mark_point(size=16, filled=True, fillOpacity=0.7, color=COLOURS["compound"])
    )
    networks = alt.Chart(alt.NamedData("scaling")).transform_filter("datum.axis === 'compound'")
    means = networks.transform_calculate(**millions).mark_point(size=80, color=COLOURS["compound"])
    tooltip = [alt.Tooltip("member:N", title="network"), alt.Tooltip("accuracy:Q", format=".1%")]
    layers = [
        band,
        known,
        beyond,
        trainings.encode(x=x, y=accuracy_axis()).properties(name="trainings"),
        means.encode(x=x, y=accuracy_axis(), tooltip=tooltip).properties(name="fitted"),
    ]
    return alt.LayerChart(layer=layers, width="container", height=HEIGHT)


def roofline(data: Data) -> alt.LayerChart:
    """Roofline: throughput of each kind of layer and the limit of the machine at its arithmetic intensity."""
    picked = picked_in_legend("roofline", "kind")
    chart = alt.Chart(alt.NamedData("roofline"))
    x = logarithmic_axis(alt.X, "intensity", "arithmetic intensity (FLOPs for each byte moved)", format="~g")
    y = logarithmic_axis(alt.Y, "gflops", "GFLOP/s", format="~g")
    colour = by_group(data["roofline"], "kind")
    tooltip = [
        alt.Tooltip("kind:N"),
        alt.Tooltip("member:N", title="network"),
        alt.Tooltip("gflops:Q", title="GFLOP/s", format=",.1f"),
        alt.Tooltip("bound_gflops:Q", title="at most", format=",.1f"),
        alt.Tooltip("seconds_share:Q", title="share of the time", format=".1%"),
        alt.Tooltip("macs:Q", title="MACs", format=".3s"),
    ]
    size = alt.Size("seconds_share:Q", scale=alt.Scale(range=[60, 600], domain=[0, 1]), legend=None)
    roof = alt.Chart(alt.NamedData("roofs"), name="roof").mark_line(color=GREY, strokeWidth=2)
    layers = [
        roof.encode(x=x, y=y, detail="member:N", order="intensity:Q"),
        chart.mark_rule(strokeDash=[2, 3])
        .encode(x=x, y=y, y2="bound_gflops:Q", color=colour, opacity=faded(picked))
        .add_params(picked),
        chart.mark_point(filled=True)
        .encode(x=x, y=y, color=colour, size=size, opacity=faded(picked), tooltip=tooltip)
        .properties(name="kinds"),
    ]
    return alt.LayerChart(layer=layers, width="container", height=HEIGHT)


def wins(data: Data) -> alt.LayerChart:
    """How often one network is right where another is wrong, for each pair of networks."""
    names = distinct(data["wins"], "member")
    y = alt.Y("member:N", sort=names, title="right", axis=alt.Axis(labelLimit=160))
    x = alt.X("other:N", sort=names, title="wrong", axis=alt.Axis(labelAngle=-40, labelLimit=160))
    tooltip = [
        alt.Tooltip("member:N", title="right"),
        alt.Tooltip("other:N", title="wrong"),
        alt.Tooltip("share:Q", title="of the images", format=".1%"),
    ]
    chart = alt.Chart(alt.NamedData("wins")).encode(x=x, y=y)
    opacity = alt.Opacity("share:Q", scale=alt.Scale(range=[0.05, 0.75]), legend=None)
    layers = [
        chart.mark_rect(color=COLOURS["compound"]).encode(opacity=opacity, tooltip=tooltip).properties(name="pairs"),
        chart.mark_text(fontSize=11).encode(text=alt.Text("share:Q", format=".1%")),
    ]
    return alt.LayerChart(layer=layers, width="container", height=HEIGHT)
