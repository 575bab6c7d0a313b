"""Summarize the rows of a study: means over seeds, Pareto fronts, ratios, and the findings in words.

Pure Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from keras_effnet.architecture.scaling import PUBLISHED
from keras_effnet.errors import one_of


@dataclass(frozen=True)
class Metric:
    """Cost that accuracy is compared with.

    Args:
        label: String, for display.
        unit: String.
        scale: Float, factor from the raw value to `unit`.
        measured: Bool, True where it was measured on this machine rather than counted.
    """

    label: str
    unit: str
    scale: float = 1.0
    measured: bool = True


# Field of `Summary` -> its metric.
METRICS: dict[str, Metric] = {
    "macs": Metric("MACs", "million", 1e-6, measured=False),
    "params": Metric("parameters", "million", 1e-6, measured=False),
    "activations": Metric("activations", "million", 1e-6, measured=False),
    "step_ms": Metric("training step", "ms"),
    "train_seconds": Metric("training", "s"),
    "seconds_to_target": Metric("time to the target accuracy", "s"),
    "predict_ms": Metric("inference, one batch", "ms"),
    "tflite_ms": Metric("TFLite latency", "ms"),
    "tflite_bytes": Metric("TFLite file", "MB", 1e-6),
    "peak_memory_mb": Metric("peak memory of training", "MB"),
    "energy_joules": Metric("energy of training", "kJ", 1e-3),
}


class OverSeeds:
    """Mean and standard deviation of `accuracies` over seeds."""

    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over seeds."""
        return fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None with a single seed."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class Summary(OverSeeds):
    """Cost and accuracy of a network of a study.

    Args:
        member, axis, model: Strings, see `Member`.
        phi: Float, see `Member`.
        image_size: Int, pixels.
        accuracies: Tuple of floats, validation accuracy after the last epoch, by seed.
        epochs: Int, of each training.
        params, macs, activations: Ints, for one image.
        train_images_per_second, predict_images_per_second: Floats.
        step_ms, predict_ms, tflite_ms: Floats, medians in milliseconds; `..._iqr_ms` are their interquartile ranges.
        tflite_bytes: Int, size of the float32 file.
        train_seconds: Float, wall time of the epochs, mean over seeds.
        seconds_to_target: Float or None, wall time to the target accuracy, mean over seeds; None if a seed missed it.
        input_bound: Float or None, fraction of the training time spent waiting for data.
        peak_memory_mb: Float or None, of the training process; None if every training was interrupted after its last
            epoch.
        energy_joules: Float, or None where the platform does not report it.
    """

    member: str
    axis: str
    phi: float
    model: str
    image_size: int
    accuracies: tuple[float, ...]
    epochs: int
    params: int
    macs: int
    activations: int
    step_ms: float
    step_iqr_ms: float
    train_images_per_second: float
    predict_ms: float
    predict_iqr_ms: float
    predict_images_per_second: float
    tflite_ms: float
    tflite_iqr_ms: float
    tflite_bytes: int
    train_seconds: float
    seconds_to_target: float | None
    input_bound: float | None
    peak_memory_mb: float | None
    energy_joules: float | None

    def cost(self, metric: str) -> float | None:
        """Value of a metric in the unit of `METRICS`; None where it was not measured."""
        value = getattr(self, one_of("metric", metric, METRICS))
        return None if value is None else value * METRICS[metric].scale


def seconds_to(curve: Sequence[Mapping[str, float]], target: float) -> float | None:
    """Wall time in seconds up to the first epoch whose validation accuracy reaches `target`; None if none does."""
    spent = 0.0
    for epoch in curve:
        spent += epoch["seconds"]
        if epoch["val_accuracy"] >= target:
            return spent
    return None


def default_target(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """95% of the lowest final accuracy, which nearly every training reaches; None without trainings."""
    final = [row["accuracy"] for row in rows if row["kind"] == "training"]
    return 0.95 * min(final) if final else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean; None if a value is missing or there are none."""
    values = list(values)
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


# Fields of `Summary` that stand in the row of kind "cost" under the same name.
_FROM_COST = (
    *("axis", "phi", "model", "image_size", "params", "macs", "activations"),
    *("step_ms", "step_iqr_ms", "train_images_per_second"),
    *("predict_ms", "predict_iqr_ms", "predict_images_per_second"),
    *("tflite_ms", "tflite_iqr_ms", "tflite_bytes"),
)


def summarize(rows: Sequence[Mapping[str, Any]], target: float | None = None) -> list[Summary]:
    """Summarize each network that has been trained at least once.

    Args:
        rows: Rows of `results.jsonl`.
        target: Float in (0, 1), validation accuracy for `seconds_to_target`; default: `default_target`.

    Returns:
        List of `Summary`s by increasing MACs.
    """
    target = default_target(rows) if target is None else target
    costs = {row["member"]: row for row in rows if row["kind"] == "cost"}
    found = []
    for member, cost in costs.items():
        runs = [row for row in rows if row["kind"] == "training" and row["member"] == member]
        if not runs:
            continue
        found.append(
            Summary(
                member=member,
                accuracies=tuple(run["accuracy"] for run in sorted(runs, key=lambda run: run["seed"])),
                epochs=runs[0]["epochs"],
                train_seconds=fmean(run["train_seconds"] for run in runs),
                seconds_to_target=None if target is None else _mean(seconds_to(run["curve"], target) for run in runs),
                input_bound=_mean(run.get("input_bound") for run in runs),
                peak_memory_mb=_mean([run["peak_memory_mb"] for run in runs if run["peak_memory_mb"]]),
                energy_joules=_mean(run.get("energy_joules") for run in runs),
                **{name: cost[name] for name in _FROM_COST},
            )
        )
    return sorted(found, key=lambda summary: summary.macs)


def pareto_front(summaries: Iterable[Summary], metric: str) -> list[Summary]:
    """Pareto-optimal networks by increasing cost: no cheaper network is at least as accurate."""
    front: list[Summary] = []
    priced = [summary for summary in summaries if summary.cost(metric) is not None]
    for summary in sorted(priced, key=lambda each: (each.cost(metric), -each.accuracy)):
        if not front or summary.accuracy > front[-1].accuracy:
            front.append(summary)
    return front


def ratios(first: Summary, last: Summary) -> dict[str, float]:
    """Ratio of each cost of `last` to that of `first`, where both have it."""
    pairs = {metric: (first.cost(metric), last.cost(metric)) for metric in METRICS}
    return {metric: after / before for metric, (before, after) in pairs.items() if before and after}


def answer(summaries: Sequence[Summary]) -> list[str]:
    """Findings of a study, one sentence each: how time grew with MACs, and how accuracy grew with size."""
    if len(summaries) < 2:
        return ["A study of one network has nothing to compare; add another."]
    series = _series(summaries)
    first, last = series[0], series[-1]
    grown = ratios(first, last)
    times = ("step_ms", "predict_ms", "tflite_ms")
    growth = ", ".join(f"{METRICS[name].label} x{grown[name]:.2f}" for name in times if name in grown)
    sentences = [f"From {first.member} to {last.member} MACs grew x{grown['macs']:.2f}; {growth}."]
    share = math.log(grown["step_ms"]) / math.log(grown["macs"]) if grown["macs"] > 1 else math.nan
    if math.isfinite(share):
        sentences.append(
            f"The time of a training step grew as MACs to the power {share:.2f}; a power of 1 would mean time "
            "proportional to MACs."
        )
    sentences.append(_gain(first, last))
    return sentences + [line for line in [_rivals(summaries)] if line]


def _series(summaries: Sequence[Summary]) -> Sequence[Summary]:
    """Networks that differ only in size: compound scaling if it has two, else all EfficientNets, else all."""
    compound = [each for each in summaries if each.axis in ("compound", "baseline")]
    efficient = [each for each in summaries if each.model in PUBLISHED]
    return next((some for some in (compound, efficient) if len(some) > 1), summaries)


def _noise(*summaries: Summary) -> float | None:
    """Standard error of the difference of two means, from the standard deviations over seeds."""
    errors = [
        summary.spread / math.sqrt(len(summary.accuracies)) for summary in summaries if summary.spread is not None
    ]
    return math.hypot(*errors) if len(errors) == len(summaries) else None


def _gain(first: Summary, last: Summary) -> str:
    points = 100 * (last.accuracy - first.accuracy)
    noise = _noise(first, last)
    if noise is None:
        return f"Accuracy changed by {points:+.1f} points with one seed, too few to tell it from chance."
    verdict = "more than" if abs(points) > 200 * noise else "no more than"
    return (
        f"Accuracy changed by {points:+.1f} points, {verdict} twice its standard error over seeds, {100 * noise:.1f}."
    )


def _rivals(summaries: Sequence[Summary]) -> str | None:
    """Compare every other network with the EfficientNet closest in MACs."""
    ours = [each for each in summaries if each.model in PUBLISHED]
    others = [each for each in summaries if each.model not in PUBLISHED]
    if not ours or not others:
        return None
    parts = []
    for other in others:
        near = min(ours, key=lambda each: abs(math.log(each.macs / other.macs)))
        parts.append(
            f"{near.member} against {other.member} at x{other.macs / near.macs:.2f} its MACs and "
            f"x{other.step_ms / near.step_ms:.2f} its step: {near.accuracy:.1%} to {other.accuracy:.1%}"
        )
    return "Compared with other networks: " + "; ".join(parts) + "."
