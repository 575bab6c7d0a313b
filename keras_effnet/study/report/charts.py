"""Altair charts of a study's report.

Each function takes `report_data` and returns a chart that refers to its tables by name, so that a page embeds the data
once for all charts. Pure Python; Altair is loaded with the first chart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import lazy_loader

from keras_effnet.errors import UserError
from keras_effnet.study.report.records import labelled
from keras_effnet.study.statistics.clock_noise import CLOCKS
from keras_effnet.study.summary import METRICS

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_loader.load("altair")

Data = Mapping[str, Any]
_PACKAGES = {"altair": "altair", "vl_convert": "vl-convert-python"}

# Every colour has a contrast of at least 3 to white and to the dark page.
_COLOURS = {
    "compound": "#2f81d6",
    "depth": "#d9730d",
    "width": "#1f9d6b",
    "resolution": "#b455c9",
    "baseline": "#7d8590",
    "EfficientNet": "#2f81d6",
    "EfficientNet-Lite": "#1f9d6b",
    "progressive": "#b455c9",
}
_FURTHER = ("#d6456b", "#9a7d1c", "#1792a6", "#7f6ae0", "#6d8f1f", "#c2571a")
_RAMP = ((0x3B, 0x82, 0xC4), (0x1F, 0x9D, 0x8B), (0xB8, 0x86, 0x0B), (0xD1, 0x49, 0x5B))  # by increasing cost
_GREY = "#7d8590"
_HEIGHT = 360
_LETTER, _SYMBOL = 7, 30  # width in pixels of a letter of a legend at most, and of a symbol with its margins
_SOFT = 0.12  # opacity of marks that are not selected in the legend


def require_packages() -> None:
    """Raise a `UserError` that names the plotting packages that are not installed."""
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"A report needs {' and '.join(missing)}: pip install 'keras-effnet[study]'.")


def _distinct(records: Sequence[Mapping[str, Any]], field: str) -> list[Any]:
    """Distinct values of a field, in order of appearance."""
    return list(dict.fromkeys(record[field] for record in records))


def _ramp(count: int) -> list[str]:
    """Colours in even steps along `_RAMP`."""
    colours = []
    for step in range(count):
        place = step / max(1, count - 1) * (len(_RAMP) - 1)
        left = min(int(place), len(_RAMP) - 2)
        mixed = [a + (b - a) * (place - left) for a, b in zip(_RAMP[left], _RAMP[left + 1], strict=True)]
        colours.append("#" + "".join(f"{round(part):02x}" for part in mixed))
    return colours


def _legend(names: Sequence[str], **options: Any) -> alt.Legend:
    """Legend above the chart, with as many columns as fit its width with whole names."""
    label = _LETTER * max(map(len, names), default=1)
    columns = alt.ExprRef(f"max(1, floor(width / {label + _SYMBOL}))")
    limit = alt.ExprRef(f"max(60, width - {_SYMBOL})")  # a name that is wider than the chart
    return alt.Legend(title=None, orient="top", direction="horizontal", columns=columns, labelLimit=limit, **options)


def _by_group(records: Sequence[Mapping[str, Any]], field: str = "group") -> alt.Color:
    found = _distinct(records, field)
    names = [name for name in _COLOURS if name in found] + [name for name in found if name not in _COLOURS]
    others = [name for name in names if name not in _COLOURS]
    further = {name: _FURTHER[place % len(_FURTHER)] for place, name in enumerate(others)}
    scale = alt.Scale(domain=names, range=[(_COLOURS | further)[name] for name in names])
    return alt.Color(f"{field}:N", scale=scale, legend=_legend(names))


def _by_order(names: Sequence[str], field: str) -> alt.Color:
    """Colour scale that runs from the first name to the last."""
    scale = alt.Scale(domain=list(names), range=_ramp(len(names)))
    return alt.Color(f"{field}:N", scale=scale, legend=_legend(names, symbolType="stroke", symbolStrokeWidth=3))


def _picked(chart: str, field: str) -> alt.Parameter:
    """Selection by a click on the legend.

    Add it to the first layer that has this colour: the merged legend of the layers ignores clicks for later ones.
    """
    return alt.selection_point(name=f"{chart}_picked", fields=[field], bind="legend")


def _faded(picked: alt.Parameter) -> Any:
    return alt.when(picked).then(alt.value(1.0)).otherwise(alt.value(_SOFT))


def _accuracy(field: str = "accuracy", title: str = "accuracy") -> alt.Y:
    scale = alt.Scale(zero=False, padding=16, nice=False)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=".0%", tickCount=6))


def _logarithmic(channel: type, field: str, title: str | None, **axis: Any) -> Any:
    scale = alt.Scale(type="log", padding=24, nice=False)
    return channel(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6, **axis))


def _network_tooltip(data: Data) -> list[alt.Tooltip]:
    """Tooltip with all figures of a network; the chart must look them up, see `_with_figures`."""
    has = _distinct(data["pareto"], "metric")
    labels = {"accuracy": "accuracy"} | {metric: METRICS[metric].label for metric in METRICS if metric in has}
    figures = [alt.Tooltip(f"shown.{name}:N", title=label) for name, label in labels.items()]
    size = alt.Tooltip("image_size:Q", title="image, pixels")
    return [alt.Tooltip("member:N", title="network"), figures[0], alt.Tooltip("seeds:Q"), size, *figures[1:]]


def _with_figures(chart: alt.Chart) -> alt.Chart:
    networks = alt.LookupData(data=alt.NamedData("networks"), key="member", fields=["shown", "seeds", "image_size"])
    return chart.transform_lookup(lookup="member", from_=networks)


def _below(choices: Mapping[str, str], parameter: str) -> alt.TitleParams:
    """Title below the chart that follows a parameter, which the title of an axis cannot."""
    text = alt.ExprRef(f"({json.dumps(dict(choices))})[{parameter}]")
    return alt.TitleParams(text, orient="bottom", fontSize=12, fontWeight="normal")


def _front(chart: alt.Chart, x: alt.X) -> list[alt.Chart]:
    """Dashed line along the Pareto front, and the names of its networks."""
    front = chart.transform_filter("datum.front")
    # Names go above and left of the front, where there are no marks, except at the left edge, which has no room.
    at_edge = "scale('x', datum.cost) < 100"
    align, offset = alt.ExprRef(f"{at_edge} ? 'left' : 'right'"), alt.ExprRef(f"{at_edge} ? 9 : -9")
    line = front.mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=_GREY).encode(order="cost:Q")
    names = front.mark_text(fontSize=11, align=align, dx=offset, dy=offset).encode(text="member:N")
    return [
        line.encode(x=x, y=_accuracy()).properties(name="front"),
        names.encode(x=x, y=_accuracy()).properties(name="labels"),
    ]


def pareto(data: Data) -> alt.LayerChart:
    """Accuracy against a selectable cost, with the Pareto front."""
    titles = {name: labelled(name) for name in _distinct(data["pareto"], "metric")}
    choice = alt.binding_select(options=list(titles), labels=[METRICS[name].label for name in titles], name="Cost")
    metric = alt.param(name="metric", value=next(iter(titles)), bind=choice)
    picked, chosen = _picked("pareto", "group"), "datum.metric === metric"
    chart = alt.Chart(alt.NamedData("pareto")).transform_filter(chosen)
    dots = alt.Chart(alt.NamedData("seeds")).transform_filter(chosen).mark_point(size=14, filled=True, fillOpacity=0.6)
    x = _logarithmic(alt.X, "cost", None)
    shared = {"x": x, "color": _by_group(data["pareto"]), "opacity": _faded(picked)}
    line, names = _front(chart, x)
    layers = [
        line,
        chart.mark_rule(strokeWidth=1.5, strokeOpacity=0.6)
        .encode(y=_accuracy("low"), y2="high:Q", **shared)
        .add_params(picked),
        *([dots.encode(y=_accuracy(), **shared).properties(name="seeds")] if data["seeds"] else []),
        _with_figures(chart)
        .mark_point(size=110, filled=True)
        .encode(y=_accuracy(), tooltip=_network_tooltip(data), **shared)
        .properties(name="means"),
        names,
    ]
    title = _below(titles, "metric")
    return alt.LayerChart(layer=layers, title=title, width="container", height=_HEIGHT).add_params(metric)


def scaling(data: Data) -> alt.LayerChart:
    """Accuracy against MACs with one line for each scaling axis, as in figure 3 of the EfficientNet paper."""
    picked = _picked("scaling", "axis")
    chart = alt.Chart(alt.NamedData("scaling")).transform_calculate(millions="datum.macs / 1e6")
    x, colour = _logarithmic(alt.X, "millions", "MACs (million)"), _by_group(data["scaling"], "axis")
    line = {"x": x, "color": colour, "opacity": _faded(picked)}
    layers = [
        chart.mark_line(strokeWidth=2)
        .encode(y=_accuracy(), detail="model:N", order="macs:Q", **line)
        .add_params(picked),
        chart.mark_rule(strokeWidth=1.5).encode(y=_accuracy("low"), y2="high:Q", **line),
        _with_figures(chart.properties(name="scaled"))
        .mark_point(size=70, filled=True)
        .encode(y=_accuracy(), tooltip=_network_tooltip(data), **line),
    ]
    return alt.LayerChart(layer=layers, width="container", height=_HEIGHT)


def times(data: Data) -> alt.LayerChart:
    """Relative time against relative MACs; on the diagonal time is proportional to MACs."""
    picked = _picked("times", "clock")
    chart = alt.Chart(alt.NamedData("times"))
    ticks = {"format": "~g"}
    x = _logarithmic(alt.X, "macs_ratio", "MACs, relative to the smallest network", **ticks)
    y = _logarithmic(alt.Y, "time_ratio", "time, relative to the smallest network", **ticks)
    names = [METRICS[clock].label for clock in CLOCKS]
    range_ = [_COLOURS["compound"], _COLOURS["depth"], _COLOURS["width"]]
    colour = alt.Color("clock:N", scale=alt.Scale(domain=names, range=range_), legend=_legend(names))
    tooltip = [
        alt.Tooltip("member:N", title="network"),
        alt.Tooltip("clock:N", title="time of"),
        alt.Tooltip("macs_ratio:Q", title="MACs x", format=".2f"),
        alt.Tooltip("time_ratio:Q", title="time x", format=".2f"),
    ]
    diagonal = alt.Chart(alt.NamedData("diagonal"), name="diagonal").mark_line(strokeDash=[5, 4], color=_GREY)
    end = alt.Chart(alt.NamedData("diagonal")).transform_filter("datum.ratio > 1")
    shared = {"x": x, "y": y, "color": colour, "opacity": _faded(picked)}
    layers = [
        diagonal.encode(x="ratio:Q", y="ratio:Q"),
        end.mark_text(align="right", dy=-10, dx=-12).encode(x="ratio:Q", y="ratio:Q", text=alt.value("time = MACs")),
        chart.transform_filter("datum.lined")
        .mark_line(strokeWidth=2)
        .encode(order="macs_ratio:Q", **shared)
        .add_params(picked),
        chart.mark_point(size=60, filled=True).encode(tooltip=tooltip, **shared).properties(name="ratios"),
    ]
    return alt.LayerChart(layer=layers, width="container", height=_HEIGHT)


def curves(data: Data) -> alt.LayerChart:
    """Validation accuracy of each training, by epoch or by wall time."""
    titles = {"epoch": "epoch", "elapsed": "wall time of training (s)"}
    choice = alt.binding_radio(options=list(titles), labels=["epoch", "wall time"], name="By")
    along = alt.param(name="along", value="epoch", bind=choice)
    picked = _picked("curves", "member")
    chart = alt.Chart(alt.NamedData("curves")).transform_calculate(at="datum[along]")
    x = alt.X("at:Q", title=None, scale=alt.Scale(zero=False, nice=False, padding=12), axis=alt.Axis(tickCount=8))
    colour = _by_order(_distinct(data["curves"], "member"), "member")
    shared = {"x": x, "y": _accuracy("val_accuracy", "validation accuracy"), "color": colour}
    tooltip = [
        alt.Tooltip("member:N", title="network"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("elapsed:Q", title="seconds", format=",.1f"),
        alt.Tooltip("val_accuracy:Q", title="accuracy", format=".1%"),
    ]
    layers = [
        chart.mark_line(strokeWidth=1.8)
        .encode(detail="seed:N", order="epoch:Q", opacity=_faded(picked), **shared)
        .properties(name="runs")
        .add_params(picked),
        chart.mark_point(size=26, filled=True)
        .encode(opacity=_faded(picked), tooltip=tooltip, **shared)
        .properties(name="epochs"),
    ]
    title = _below(titles, "along")
    return alt.LayerChart(layer=layers, title=title, width="container", height=_HEIGHT).add_params(along)


def law(data: Data) -> alt.LayerChart:
    """Power law of the compound scaling, its prediction interval, and the networks it was fitted to."""
    x = _logarithmic(alt.X, "millions", "MACs (million)", format="~g")
    chart = alt.Chart(alt.NamedData("law")).transform_calculate(millions="datum.macs / 1e6")
    band = chart.mark_area(opacity=0.15, color=_COLOURS["compound"]).encode(x=x, y=_accuracy("low"), y2="high:Q")
    known, beyond = (
        chart.transform_filter(f"datum.extrapolated === {value}").encode(x=x, y=_accuracy())
        for value in ("false", "true")
    )
    known = known.mark_line(color=_COLOURS["compound"], strokeWidth=2)
    beyond = beyond.mark_line(color=_COLOURS["compound"], strokeWidth=2, strokeDash=[5, 4])
    millions = {"millions": "datum.macs / 1e6"}
    trainings = (
        alt.Chart(alt.NamedData("fitted"))
        .transform_calculate(**millions)
        .mark_point(size=16, filled=True, fillOpacity=0.7, color=_COLOURS["compound"])
    )
    networks = alt.Chart(alt.NamedData("scaling")).transform_filter("datum.axis === 'compound'")
    means = networks.transform_calculate(**millions).mark_point(size=80, color=_COLOURS["compound"])
    tooltip = [alt.Tooltip("member:N", title="network"), alt.Tooltip("accuracy:Q", format=".1%")]
    layers = [
        band,
        known,
        beyond,
        trainings.encode(x=x, y=_accuracy()).properties(name="trainings"),
        means.encode(x=x, y=_accuracy(), tooltip=tooltip).properties(name="fitted"),
    ]
    return alt.LayerChart(layer=layers, width="container", height=_HEIGHT)


def roofline(data: Data) -> alt.LayerChart:
    """Roofline: throughput of each kind of layer and the limit of the machine at its arithmetic intensity."""
    picked = _picked("roofline", "kind")
    chart = alt.Chart(alt.NamedData("roofline"))
    x = _logarithmic(alt.X, "intensity", "arithmetic intensity (FLOPs for each byte moved)", format="~g")
    y = _logarithmic(alt.Y, "gflops", "GFLOP/s", format="~g")
    colour = _by_group(data["roofline"], "kind")
    tooltip = [
        alt.Tooltip("kind:N"),
        alt.Tooltip("member:N", title="network"),
        alt.Tooltip("gflops:Q", title="GFLOP/s", format=",.1f"),
        alt.Tooltip("bound_gflops:Q", title="at most", format=",.1f"),
        alt.Tooltip("seconds_share:Q", title="share of the time", format=".1%"),
        alt.Tooltip("macs:Q", title="MACs", format=".3s"),
    ]
    size = alt.Size("seconds_share:Q", scale=alt.Scale(range=[60, 600], domain=[0, 1]), legend=None)
    roof = alt.Chart(alt.NamedData("roofs"), name="roof").mark_line(color=_GREY, strokeWidth=2)
    layers = [
        roof.encode(x=x, y=y, detail="member:N", order="intensity:Q"),
        chart.mark_rule(strokeDash=[2, 3])
        .encode(x=x, y=y, y2="bound_gflops:Q", color=colour, opacity=_faded(picked))
        .add_params(picked),
        chart.mark_point(filled=True)
        .encode(x=x, y=y, color=colour, size=size, opacity=_faded(picked), tooltip=tooltip)
        .properties(name="kinds"),
    ]
    return alt.LayerChart(layer=layers, width="container", height=_HEIGHT)
