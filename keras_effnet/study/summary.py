"""Summarize the rows of a study: means over seeds, Pareto fronts and ratios.

Pure Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from keras_effnet.errors import UserError, one_of


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
    "predicted_seconds": Metric("training, predicted", "s"),
    "seconds_to_target": Metric("time to the target accuracy", "s"),
    "predict_ms": Metric("inference, one batch", "ms"),
    "tflite_ms": Metric("TFLite latency", "ms"),
    "tflite_bytes": Metric("TFLite file", "MB", 1e-6),
    "trace_seconds": Metric("tracing", "s"),
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
        accuracies: Tuple of floats, accuracy after the last epoch, by seed, on the images of `split`.
        seed_numbers: Tuple of ints, the seeds.
        images: Int or None, number of these images; None in results of earlier versions.
        epochs: Int, of each training.
        params, macs, activations: Ints, for one image.
        train_images_per_second, predict_images_per_second: Floats.
        step_ms, predict_ms, tflite_ms: Floats, medians in milliseconds; `..._iqr_ms` are their interquartile ranges.
        tflite_bytes: Int, size of the float32 file.
        trace_seconds: Float or None, of the first training step, which traces the graph; not part of any other time.
        cores: Int or None, of the machine.
        other_cores: Float or None, cores that other processes used while the network was timed.
        train_seconds: Float, wall time of the epochs, mean over seeds.
        predicted_seconds: Float or None, the same as predicted from the measured pace, for a budget of seconds.
        seconds_to_target: Float or None, wall time to the target accuracy, mean over seeds; None if a seed missed it.
        input_bound: Float or None, fraction of the training time spent waiting for data.
        peak_memory_mb: Float or None, of the training process; None if every training was interrupted after its last
            epoch.
        energy_joules: Float, or None where the platform does not report it.
        split: String, `"test"` where every training of the study was tested, else `"validation"`.
        val_accuracy: Float or None, validation accuracy after the last epoch, mean over seeds.
        learning_rate: Float or None, where it was chosen for this network.
        tried: Tuple of pairs of floats, the learning rates it was chosen from, with their validation accuracies.
        metric: String, what all accuracies are: `"accuracy"`, or `"AP"`, COCO's average precision, of a detector.
        resampled: Tuple of a tuple of floats for each seed, the accuracy on resamples of the images, which are the same
            for all networks; empty for a classifier.
    """

    member: str
    axis: str
    phi: float
    model: str
    image_size: int
    accuracies: tuple[float, ...]
    seed_numbers: tuple[int, ...]
    images: int | None
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
    trace_seconds: float | None
    cores: int | None
    other_cores: float | None
    train_seconds: float
    seconds_to_target: float | None
    input_bound: float | None
    peak_memory_mb: float | None
    energy_joules: float | None
    split: str = "validation"
    val_accuracy: float | None = None
    predicted_seconds: float | None = None
    learning_rate: float | None = None
    tried: tuple[tuple[float, float], ...] = ()
    metric: str = "accuracy"
    resampled: tuple[tuple[float, ...], ...] = ()

    @property
    def by_seed(self) -> dict[int, float]:
        """Accuracy of each seed."""
        return dict(zip(self.seed_numbers, self.accuracies, strict=True))

    def noise(self, metric: str) -> float | None:
        """Interquartile range of a measured time, in the unit of `METRICS`; None where there is none."""
        value = getattr(self, f"{metric.removesuffix('_ms')}_iqr_ms", None) if metric.endswith("_ms") else None
        return None if value is None else value * METRICS[metric].scale

    def cost(self, metric: str) -> float | None:
        """Value of a metric in the unit of `METRICS`; None where it was not measured."""
        value = getattr(self, one_of("metric", metric, METRICS))
        return None if value is None else value * METRICS[metric].scale


def seconds_to(curve: Sequence[Mapping[str, float]], target: float) -> float | None:
    """Wall time in seconds up to the first epoch whose validation accuracy reaches `target`; None if none does."""
    spent = 0.0
    for epoch in curve:
        spent += epoch["seconds"]
        if (epoch["val_accuracy"] or 0.0) >= target:  # None in an epoch that was not measured
            return spent
    return None


def chance_level(classes: int, images: int | None = None) -> float:
    """Accuracy up to which a network may know nothing: half as much again as guessing, or three standard errors more.

    Args:
        classes: Int, number of classes.
        images: Int or None, number of validation images.
    """
    chance = 1 / classes
    error = math.sqrt(chance * (1 - chance) / images) if images else 0.0
    return min(1.0, max(1.5 * chance, chance + 3 * error)) if classes > 2 else min(1.0, chance + max(0.1, 3 * error))


def check_target(target: float | None, classes: int | None, images: int | None = None) -> None:
    """Refuse a target accuracy that guessing reaches.

    Raises:
        UserError: The target is at chance level.
    """
    if target is None or classes is None:
        return
    if target <= (level := chance_level(classes, images)):
        raise UserError(
            f"A target of {target:.1%} is at the level of chance for {classes} classes: a network that reaches it may "
            f"have learned nothing. Choose a --target above {level:.1%}."
        )


def _known(rows: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None]:
    """Numbers of classes and of validation images, where the rows of a study have them; no classes of detectors."""
    classes = next(
        (row["classes"] for row in rows if row["kind"] == "cost" and "classes" in row and "metric" not in row), None
    )
    return classes, next((row["val_images"] for row in rows if row.get("val_images")), None)


def default_target(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """95% of the lowest final accuracy that is above chance, which nearly every training reaches; None without one."""
    classes, images = _known(rows)
    level = chance_level(classes, images) if classes else 0.0
    final = [row["accuracy"] for row in rows if row["kind"] == "training"]
    return min((target for accuracy in final if (target := 0.95 * accuracy) > level), default=None)


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

    Raises:
        UserError: The target is at chance level.
    """
    check_target(target, *_known(rows))
    target = default_target(rows) if target is None else target
    costs = {row["member"]: row for row in rows if row["kind"] == "cost"}
    tested = all("test_accuracy" in row for row in rows if row["kind"] == "training")
    accuracy, images = ("test_accuracy", "test_images") if tested else ("accuracy", "val_images")
    tuning = {row["member"]: row for row in rows if row["kind"] == "tuning"}
    found = []
    for member, cost in costs.items():
        runs = [row for row in rows if row["kind"] == "training" and row["member"] == member]
        if not runs:
            continue
        runs.sort(key=lambda run: run["seed"])
        found.append(
            Summary(
                member=member,
                accuracies=tuple(run[accuracy] for run in runs),
                split="test" if tested else "validation",
                val_accuracy=fmean(run["accuracy"] for run in runs),
                seed_numbers=tuple(run["seed"] for run in runs),
                images=runs[0].get(images),
                epochs=runs[0]["epochs"],
                train_seconds=fmean(run["train_seconds"] for run in runs),
                predicted_seconds=_mean(run.get("predicted_seconds") for run in runs),
                seconds_to_target=None if target is None else _mean(seconds_to(run["curve"], target) for run in runs),
                input_bound=_mean(run.get("input_bound") for run in runs),
                peak_memory_mb=_mean([run["peak_memory_mb"] for run in runs if run["peak_memory_mb"]]),
                energy_joules=_mean(run.get("energy_joules") for run in runs),
                trace_seconds=cost.get("trace_seconds"),  # earlier versions did not record these three
                cores=cost.get("cores"),
                other_cores=cost.get("other_cores"),
                metric=cost.get("metric", "accuracy"),
                resampled=tuple(tuple(run["resampled"]) for run in runs if "resampled" in run),
                **_tuned(tuning.get(member)),
                **{name: cost[name] for name in _FROM_COST},
            )
        )
    return sorted(found, key=lambda summary: summary.macs)


def _tuned(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of a `Summary` on the choice of the learning rate; none where there was no choice."""
    if row is None:
        return {}
    tried = tuple((each["learning_rate"], each["accuracy"]) for each in row["tried"])
    return {"learning_rate": row["learning_rate"], "tried": tried}


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
