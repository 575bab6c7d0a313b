"""Charts of an export: precisions side by side, and where quantization loses the signal. Matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_effnet.evaluation.canvas import new_figure, save

_TICKS = (-1000, -300, -100, -30, -8, -4, 0, 4, 8, 30, 100, 300, 1000)  # of values before a swish


def precision_bars(names: Sequence[str], panels: Mapping[str, Sequence[float]], title: str, path: str | Path) -> None:
    """Draw one bar chart per quantity, with one bar per precision.

    Args:
        names: Names of the precisions.
        panels: Mapping of quantity to its value for each precision.
        title: String.
        path: Image file to write.
    """
    figure, axes = new_figure(1, len(panels), figsize=(2.7 * len(panels), 3.0), squeeze=False)
    colors = [f"C{index}" for index in range(len(names))]
    for axis, (label, values) in zip(axes.flat, panels.items(), strict=True):
        bars = axis.bar(names, values, color=colors)
        axis.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
        axis.set_title(label, fontsize=10)
        axis.margins(y=0.15)
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def layer_errors(
    profiles: Mapping[str, Sequence[tuple[str, float]]], lost_db: float, path: str | Path, highest: float = 60.0
) -> None:
    """Plot the signal-to-quantization-noise ratio of every layer's output, one line per precision.

    Args:
        profiles: Mapping of precision to pairs of layer name and SQNR in dB, in the order of the layers.
        lost_db: Float, SQNR below which the signal counts as lost.
        path: Image file to write.
        highest: Float, SQNR in dB above which values are clipped, since differences no longer matter.
    """
    figure, axis = new_figure(figsize=(10, 4.2))
    order = max(([layer for layer, _ in profile] for profile in profiles.values()), key=len)
    places = {layer: place for place, layer in enumerate(order)}
    for name, profile in profiles.items():
        known = [(places[layer], min(sqnr, highest)) for layer, sqnr in profile if layer in places]
        axis.plot(*zip(*known, strict=True), marker=".", markersize=4, linewidth=1, label=name)
    lowest = min([0.0, *(sqnr for profile in profiles.values() for _, sqnr in profile)])
    axis.axhspan(lowest, lost_db, color="C3", alpha=0.12, label="signal lost")
    axis.set(ylabel=f"SQNR (dB, up to {highest:g})", xlim=(-1, len(order)), ylim=(lowest, highest + 2))
    axis.set_title("quantization noise of each layer's output", fontsize=10)
    every = max(1, len(order) // 40)
    axis.set_xticks(range(0, len(order), every), order[::every], rotation=90, fontsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, path)


def swish_profiles(
    ranges: Mapping[str, Sequence[float]], lines: Mapping[str, Sequence[float | None]], path: str | Path
) -> None:
    """Plot the ranges before each swish above the SQNR of its output, one line per file.

    Args:
        ranges: Mapping of layer name, in the order of the layers, to minimum, maximum, and both ends of the central
            values of the pre-activation.
        lines: Mapping of file to the SQNR in dB of each layer's output, None where unknown.
        path: Image file to write.
    """
    figure, (above, below) = new_figure(2, 1, figsize=(10, 6), sharex=True)
    names = [name.removesuffix("_activation") for name in ranges]
    places, (lows, highs, bulk_lows, bulk_highs) = range(len(names)), zip(*ranges.values(), strict=True)
    for low, high, width, label in ((lows, highs, 0.35, "all values"), (bulk_lows, bulk_highs, 0.7, "central 99.8%")):
        heights = [top - bottom for bottom, top in zip(low, high, strict=True)]
        above.bar(places, heights, width, bottom=low, label=label, alpha=0.6)
    above.set_yscale("symlog", linthresh=8)
    above.set_yticks(_TICKS, map(str, _TICKS))
    above.set_ylim(1.1 * min(*lows, -8), 1.1 * max(*highs, 8))
    above.set(ylabel="before swish", title="range of the values before each swish, linear within 8")
    for name, values in lines.items():
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        below.plot(*zip(*known, strict=True), marker=".", linewidth=1, label=name)
    below.set(ylabel="SQNR (dB)", title="quantization noise of each swish's output")
    below.set_xticks(places, names, rotation=90, fontsize=7)
    for axis in (above, below):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, path)
