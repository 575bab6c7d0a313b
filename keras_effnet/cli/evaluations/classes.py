"""Findings of a classifier: accuracy, confusions, calibration. numpy, and TensorFlow to read images again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import click

from keras_effnet.cli.evaluations.findings import DRAWN, TABLED, CsvTable, Findings, Subject, percent, show_ranked
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task.outputs import Batches
from keras_effnet.evaluation.metrics import (
    Evaluation,
    Outcomes,
    Reliability,
    collect_outcomes,
    compute_metrics,
    least_certain,
    most_confused,
    reliability,
    worst_mistakes,
)

MATRIX_IN_JSON = 100  # up to this many classes, the confusion matrix is included: larger ones are mostly zeros
NOTES = {
    "logits": "The network outputs logits; probabilities are computed by softmax.",
    "scores": "The outputs do not sum to 1 (sigmoids, or values rounded to 8 bits); they are used unchanged.",
}
ClassRow = TypedDict("ClassRow", {"class": str, "precision": float, "recall": float, "f1": float, "images": int})


def find_classes(batches: Batches, subject: Subject) -> Findings:
    """Evaluate a classifier."""
    outcomes = collect_outcomes(batches)
    result = compute_metrics(outcomes)
    bins = reliability(outcomes.confidence, outcomes.correct)
    names, rows = subject.names, _class_rows(result, subject.names)
    title = f"ECE {result.ece:.2%}, {result.samples} images"
    return Findings(
        summary=_summary(result, bins, names) | {"scores": outcomes.scores},
        tables={
            "per_class.csv": CsvTable(tuple(rows[0]), [tuple(row.values()) for row in rows]),
            "predictions.csv": _predictions(outcomes, subject),
        },
        drawings={
            "confusion.png": lambda path: plots.confusion_matrix(result.confusion, names, path),
            "reliability.png": lambda path: plots.reliability(bins.counts, bins.confidence, bins.accuracy, title, path),
            "worst.png": lambda path: draw_worst(outcomes, subject, path),
        },
        lines=_lines(result, outcomes, subject),
        show_names=lambda: show_classes(rows),
    )


def _summary(result: Evaluation, bins: Reliability, names: Sequence[str]) -> dict[str, object]:
    mistakes = [
        {"true": names[true], "predicted": names[predicted], "count": count}
        for true, predicted, count in most_confused(result.confusion, 10)
    ]
    calibration = {"counts": bins.counts, "confidence": bins.confidence, "accuracy": bins.accuracy}
    matrix = result.confusion if len(names) <= MATRIX_IN_JSON else None
    described = {"support": result.support, "most_confused": mistakes, "reliability": calibration, "confusion": matrix}
    return asdict(result) | described


def _class_rows(result: Evaluation, names: Sequence[str]) -> list[ClassRow]:
    columns = zip(names, result.precision, result.per_class, result.f1, result.support, strict=True)
    return [
        {"class": name, "precision": precision, "recall": recall, "f1": f1, "images": count}
        for name, precision, recall, f1, count in columns
    ]


def _predictions(outcomes: Outcomes, subject: Subject) -> CsvTable:
    names = subject.names
    numbers = zip(outcomes.labels, outcomes.predicted, outcomes.confidence, outcomes.likelihood, strict=True)
    rows = (
        (image, names[true], names[predicted], float(share), float(likelihood))
        for image, (true, predicted, share, likelihood) in zip(subject.images, numbers, strict=True)
    )
    return CsvTable(("image", "true", "predicted", "probability", "probability_of_true"), rows)


def draw_worst(outcomes: Outcomes, subject: Subject, path: Path) -> None:
    """Draw the most confident mistakes, or the least confident predictions if there are none."""
    chosen = worst_mistakes(outcomes, DRAWN)
    if not len(chosen):
        chosen = least_certain(outcomes, DRAWN)
    images, _ = subject.read(chosen)  # only these are read again
    plots.image_grid(images, [_title(outcomes, index, subject.names) for index in chosen], path)


def _title(outcomes: Outcomes, index: int, names: Sequence[str]) -> str:
    true, said = (_brief(names[classes[index]]) for classes in (outcomes.labels, outcomes.predicted))
    answer = f"{said}  {outcomes.confidence[index]:.0%}"
    return answer if outcomes.correct[index] else f"{true}\nas {answer}"


def _brief(name: str, width: int = 18) -> str:
    """Shorten a class name so that it fits above an image."""
    return name if len(name) <= width else f"{name[: width - 3]}..."


def show_classes(classes: Sequence[ClassRow]) -> None:
    """Print a table of all classes, or of the ten worst and the ten best if there are many."""
    rows = [
        (each["class"], percent(each["precision"]), percent(each["recall"]), percent(each["f1"]), str(each["images"]))
        for each in classes
    ]
    ranks = [each["f1"] if each["images"] else math.nan for each in classes]
    show_ranked(tuple(classes[0]), rows, ranks, "classes, by F1")
    if len(classes) > TABLED:
        click.echo("per_class.csv lists all classes.")


def _lines(result: Evaluation, outcomes: Outcomes, subject: Subject) -> list[str]:
    lines = [f"{subject.path}: accuracy {result.accuracy:.2%} on {result.samples} images, top-5 {result.top5:.2%}."]
    if outcomes.scores in NOTES:
        lines.append(NOTES[outcomes.scores])
    sides = f"mean confidence {result.confidence:.1%}, accuracy {result.accuracy:.1%}"
    lines.append(f"Calibration error (ECE) {result.ece:.2%}: {sides}. Cross-entropy {result.nll:.4f}.")
    names = subject.names
    pairs = [f"{names[true]} as {names[said]} ({count})" for true, said, count in most_confused(result.confusion, 5)]
    if not pairs:
        return [*lines, "No mistakes; worst.png shows the least confident predictions."]
    lines.append(f"Most frequent confusions: {', '.join(pairs)}.")
    return [*lines, f"worst.png shows the most confident of {int((~outcomes.correct).sum())} mistakes."]
