"""How a network learns a task from labelled images: labels, loss, metrics, the metric that is watched. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

LabelKind: TypeAlias = Literal["class", "flags", "values", "mask", "boxes"]


@dataclass(frozen=True)
class Watched:
    """Validation metric by which the best checkpoint is chosen.

    Args:
        metric: String, name of the metric: `"accuracy"` is `val_accuracy` in `results.csv`.
        title: String, the metric in texts and axes.
        direction: `"max"` or `"min"`, which values are better.
        percent: Bool, whether values are shown in percent.
    """

    metric: str
    title: str
    direction: Literal["max", "min"] = "max"
    percent: bool = True

    @property
    def column(self) -> str:
        """Column of the validation metric in `results.csv`."""
        return f"val_{self.metric}"

    @property
    def average_column(self) -> str:
        """Column of the metric of the averaged weights, which few runs have."""
        return f"val_ema_{self.metric}"

    def score(self, row: Mapping[str, float]) -> float:
        """Value of an epoch, the better of its weights and their average; higher is better in either direction.

        A value that is not a number is worse than any other.
        """
        sign = 1 if self.direction == "max" else -1
        values = [sign * row[name] for name in (self.column, self.average_column) if name in row]
        return max((value for value in values if not math.isnan(value)), default=-math.inf)

    def average_is_better(self, row: Mapping[str, float]) -> bool:
        """Whether the averaged weights of an epoch are better than the weights."""
        return self.score(row) > self.score({self.column: row[self.column]})

    def shown(self, value: float) -> str:
        """A value as text; a dash for one that was not measured."""
        if math.isnan(value):
            return "-"
        return f"{value:.1%}" if self.percent else f"{value:.4g}"


@dataclass(frozen=True)
class Learning:
    """How a network learns a task.

    Args:
        labels: Kind of a split's labels: `"class"`, one of the classes per image; `"flags"`, 0 or 1 for each label;
            `"values"`, numbers; `"mask"`, a class per pixel; `"boxes"`, boxes with a class each.
        activation: Name of the activation of the head.
        loss: Name of the loss, a class of `keras.losses` or of this package.
        metrics: Names of the metrics, as in `results.csv`.
        watched: `Watched`, one of them.
        sentence: String, the end of a training in words; `{score}` and `{samples}` stand for its result.
        smoothed: Bool, whether label smoothing applies.
        mixed: Bool, whether MixUp and CutMix apply.
        weighted: Bool, whether rare labels can be weighted.
        guessable: Bool, whether there is an accuracy that guessing reaches.
        named: What the names of a dataset name, in singular and plural.
    """

    labels: LabelKind
    activation: Literal["softmax", "sigmoid", "linear"]
    loss: str
    metrics: tuple[str, ...]
    watched: Watched
    sentence: str
    smoothed: bool = True
    mixed: bool = True
    weighted: bool = True
    guessable: bool = False
    named: tuple[str, str] = ("class", "classes")


ACCURACY = Watched("accuracy", "accuracy")

LEARN_CLASSES = Learning(
    labels="class",
    activation="softmax",
    loss="CategoricalCrossentropy",
    metrics=("accuracy",),
    watched=ACCURACY,
    sentence="{score} of {samples} validation images right",
    guessable=True,
)
LEARN_BINARY = Learning(
    labels="class",
    activation="sigmoid",
    loss="BinaryCrossentropy",
    metrics=("accuracy", "auc"),
    watched=ACCURACY,
    sentence="{score} of {samples} validation images right",
    guessable=True,
)
LEARN_LABELS = Learning(
    labels="flags",
    activation="sigmoid",
    loss="BinaryCrossentropy",
    metrics=("map", "accuracy"),
    watched=Watched("map", "mAP"),
    sentence="mAP {score} on {samples} validation images",
    named=("label", "labels"),
)
LEARN_VALUES = Learning(
    labels="values",
    activation="linear",
    loss="StandardizedError",
    metrics=("mae", "r2"),
    watched=Watched("r2", "R²", percent=False),
    sentence="R² {score} on {samples} validation images",
    smoothed=False,
    weighted=False,
    named=("value", "values"),
)
LEARN_MASKS = Learning(
    labels="mask",
    activation="softmax",
    loss="SparseCategoricalCrossentropy",
    metrics=("mean_iou",),
    watched=Watched("mean_iou", "mean IoU"),
    sentence="mean IoU {score} on {samples} validation images",
    smoothed=False,
    mixed=False,
)
LEARN_BOXES = Learning(
    labels="boxes",
    activation="sigmoid",
    loss="DetectionLoss",
    metrics=("ap", "ap50"),
    watched=Watched("ap", "AP"),
    sentence="AP {score} on {samples} validation images",
    smoothed=False,
    mixed=False,
    weighted=False,
)
