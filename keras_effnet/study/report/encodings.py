"""Colours, legends and axes that the charts of a report share.

Pure Python; Altair is loaded with the first chart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lazy_loader

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_loader.load("altair")

# Every colour has a contrast of at least 3 to white and to the dark page.
COLOURS = {
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
GREY = "#7d8590"
HEIGHT = 360
_LETTER, _SYMBOL = 7, 30  # width in pixels of a letter of a legend at most, and of a symbol with its margins
_SOFT = 0.12  # opacity of marks that are not selected in the legend


def distinct(records: Sequence[Mapping[str, Any]], field: str) -> list[Any]:
    """Distinct values of a field, in order of appearance."""
    return list(dict.fromkeys(record[field] for record in records))


def ramp(count: int) -> list[str]:
    """Colours in even steps along `_RAMP`."""
    colours = []
    for step in range(count):
        place = step / max(1, count - 1) * (len(_RAMP) - 1)
        left = min(int(place), len(_RAMP) - 2)
        mixed = [a + (b - a) * (place - left) for a, b in zip(_RAMP[left], _RAMP[left + 1], strict=True)]
        colours.append("#" + "".join(f"{round(part):02x}" for part in mixed))
    return colours


def legend_above(names: Sequence[str], **options: Any) -> alt.Legend:
    """Legend above the chart, with as many columns as fit its width with whole names."""
    label = _LETTER * max(map(len, names), default=1)
    columns = alt.ExprRef(f"max(1, floor(width / {label + _SYMBOL}))")
    limit = alt.ExprRef(f"max(60, width - {_SYMBOL})")  # a name that is wider than the chart
    return alt.Legend(title=None, orient="top", direction="horizontal", columns=columns, labelLimit=limit, **options)


def by_group(records: Sequence[Mapping[str, Any]], field: str = "group") -> alt.Color:
    """Colour scale of the names in a field, with a fixed colour for each axis and family."""
    found = distinct(records, field)
    names = [name for name in COLOURS if name in found] + [name for name in found if name not in COLOURS]
    others = [name for name in names if name not in COLOURS]
    further = {name: _FURTHER[place % len(_FURTHER)] for place, name in enumerate(others)}
    scale = alt.Scale(domain=names, range=[(COLOURS | further)[name] for name in names])
    return alt.Color(f"{field}:N", scale=scale, legend=legend_above(names))


def by_order(names: Sequence[str], field: str) -> alt.Color:
    """Colour scale that runs from the first name to the last."""
    scale = alt.Scale(domain=list(names), range=ramp(len(names)))
    return alt.Color(f"{field}:N", scale=scale, legend=legend_above(names, symbolType="stroke", symbolStrokeWidth=3))


def picked_in_legend(chart: str, field: str) -> alt.Parameter:
    """Selection by a click on the legend.

    Add it to the first layer that has this colour: the merged legend of the layers ignores clicks for later ones.
    """
    return alt.selection_point(name=f"{chart}_picked", fields=[field], bind="legend")


def faded(picked: alt.Parameter) -> Any:
    """Opacity that fades all marks but those that are selected."""
    return alt.when(picked).then(alt.value(1.0)).otherwise(alt.value(_SOFT))


def accuracy_axis(field: str = "accuracy", title: str = "accuracy") -> alt.Y:
    """Vertical axis of accuracies in percent, without zero."""
    scale = alt.Scale(zero=False, padding=16, nice=False)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=".0%", tickCount=6))


def logarithmic_axis(channel: type, field: str, title: str | None, **axis: Any) -> Any:
    """Logarithmic axis, for the channel `alt.X` or `alt.Y`."""
    scale = alt.Scale(type="log", padding=24, nice=False)
    return channel(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6, **axis))


def title_below(choices: Mapping[str, str], parameter: str) -> alt.TitleParams:
    """Title below the chart that follows a parameter, which the title of an axis cannot."""
    text = alt.ExprRef(f"({json.dumps(dict(choices))})[{parameter}]")
    return alt.TitleParams(text, orient="bottom", fontSize=12, fontWeight="normal")
