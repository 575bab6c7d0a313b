"""`LABEL_FIGURES`: the figure of a dataset's labels, by task: file name, and function that draws it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task import drawings

if TYPE_CHECKING:
    from keras_effnet.datasets.findings.data_report import DataReport


def _counts(report: DataReport, path: Path) -> None:
    plots.class_counts(report.counts, report.class_names, path)


def _histograms(report: DataReport, path: Path) -> None:
    values = report.labels.details["values"]
    drawings.histograms({name: (each["edges"], each["histogram"]) for name, each in values.items()}, path)


def _shares(report: DataReport, path: Path) -> None:
    found = report.labels.details
    shares = {"share of the pixels": found["share_of_pixels"], "share of the images": found["share_of_images"]}
    drawings.bars(shares, report.class_names, path)


LABEL_FIGURES: dict[str, tuple[str, Callable[[DataReport, Path], None]]] = {
    "classification": ("classes.png", _counts),
    "binary": ("classes.png", _counts),
    "multilabel": ("labels.png", _counts),
    "regression": ("values.png", _histograms),
    "segmentation": ("classes.png", _shares),
    "detection": ("classes.png", _counts),
}
