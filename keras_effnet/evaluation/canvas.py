"""Figures without a display, written to image files: what all charts share. Matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.evaluation.fonts import readable_texts
from keras_effnet.system.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter


def new_figure(*args: Any, **kwargs: Any) -> tuple[Figure, Any]:
    """Create a figure and its axes, without a display; arguments as for `pyplot.subplots`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(*args, layout="constrained", **kwargs)


def percent_ticks() -> PercentFormatter:
    """Tick formatter that shows shares as percentages, with as many decimals as the range of the axis needs."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, decimals=None)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to an image file and close it."""
    from matplotlib import pyplot

    try:
        with atomic(path) as temporary, readable_texts(figure):
            figure.savefig(temporary, dpi=120)
    finally:
        pyplot.close(figure)
