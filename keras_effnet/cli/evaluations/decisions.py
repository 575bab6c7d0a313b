"""Findings of binary networks and of networks with independent labels. numpy, and TensorFlow to read images again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from keras_effnet.cli.evaluations.findings import (
    DRAWN,
    TABLED,
    CsvTable,
    Findings,
    Subject,
    number,
    percent,
    show_ranked,
)
from keras_effnet.errors import listed
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task import drawings
from keras_effnet.evaluation.by_task.decisions import (
    BinaryEvaluation,
    Decision,
    Decisions,
    LabelEvaluation,
    collect_decisions,
    evaluate_binary,
    evaluate_labels,
)
from keras_effnet.evaluation.by_task.outputs import Batches

_OPTIMISTIC = "chosen on these images, on which it is optimistic: measure it on others"
_LABEL_COLUMNS = ("label", "AP", "AUC", "precision", "recall", "F1", "best threshold", "best F1", "images")


def find_decisions(batches: Batches, subject: Subject) -> Findings:
    """Evaluate a binary network."""
    found = collect_decisions(batches, subject.threshold)
    result, names = evaluate_binary(found), subject.names
    decision, bins = result.decision, result.reliability
    summary: dict[str, object] = {
        "samples": result.samples,
        "negative": names[0],
        "positive": names[1],
        **asdict(decision),
        "confusion": result.confusion,
        "nll": result.nll,
        "ece": bins.ece,
        "reliability": asdict(bins),
    }
    title = f"ECE {bins.ece:.2%}, {result.samples} images"
    return Findings(
        summary=summary,
        tables={"predictions.csv": _binary_rows(found, subject)},
        drawings={
            "confusion.png": lambda path: plots.confusion_matrix(result.confusion, names, path),
            "precision_recall.png": lambda path: drawings.precision_recall(
                found.truth, found.scores, [decision], names[1:], path
            ),
            "reliability.png": lambda path: plots.reliability(bins.counts, bins.confidence, bins.accuracy, title, path),
            "worst.png": lambda path: _draw_worst(found, subject, names[1:], path),
        },
        lines=_binary_lines(result, subject),
    )


def _binary_rows(found: Decisions, subject: Subject) -> CsvTable:
    names = subject.names
    columns = zip(subject.images, found.truth[:, 0], found.answers[:, 0], found.scores[:, 0].tolist(), strict=True)
    rows = ((image, names[int(true)], names[int(said)], score) for image, true, said, score in columns)
    return CsvTable(("image", "true", "predicted", f"probability_of_{names[1]}"), rows)


def _binary_lines(result: BinaryEvaluation, subject: Subject) -> list[str]:
    decision, positive = result.decision, subject.names[1]
    lines = [
        f"{subject.path}: accuracy {decision.accuracy:.2%} on {result.samples} images, {decision.positives} of them "
        f"{positive}; AUC {number(decision.auc)}, average precision {number(decision.ap)}.",
        f"{positive} from a probability of {decision.threshold:g}: precision {percent(decision.precision)}, recall "
        f"{percent(decision.recall)}, F1 {percent(decision.f1)}.",
        f"Calibration error (ECE) {result.reliability.ece:.2%}. Cross-entropy {result.nll:.4f}.",
    ]
    if math.isnan(decision.auc):
        lines.append("All images are of one class, so there is no AUC.")
    if not math.isnan(decision.best_f1):
        best = f"The highest F1, {decision.best_f1:.1%}, is at a threshold of {decision.best_threshold:.3g}"
        lines.append(f"{best} ({_OPTIMISTIC}).")
    return lines


def find_labels(batches: Batches, subject: Subject) -> Findings:
    """Evaluate a network with independent labels."""
    found = collect_decisions(batches, subject.threshold)
    result, names = evaluate_labels(found), subject.names
    labels = result.labels
    series = {"AP": [label.ap for label in labels], "F1": [label.f1 for label in labels]}
    return Findings(
        summary={
            "samples": result.samples,
            "mean_ap": result.mean_ap,
            "mean_auc": result.mean_auc,
            "macro_f1": result.macro_f1,
            "micro_f1": result.micro_f1,
            "accuracy": result.accuracy,
            "exact": result.exact,
            "nll": result.nll,
            "labels": [{"label": name} | asdict(label) for name, label in zip(names, labels, strict=True)],
        },
        tables={
            "per_label.csv": _label_rows(result, names),
            "thresholds.csv": CsvTable(
                ("label", "threshold"), [(name, each.best_threshold) for name, each in zip(names, labels, strict=True)]
            ),
            "predictions.csv": _probabilities(found, subject),
        },
        drawings={
            "precision_recall.png": lambda path: drawings.precision_recall(
                found.truth, found.scores, labels, names, path
            ),
            "labels.png": lambda path: drawings.bars(series, names, path),
            "worst.png": lambda path: _draw_worst(found, subject, names, path),
        },
        lines=_label_lines(result, subject),
        show_names=lambda: _show_labels(labels, names),
    )


def _label_rows(result: LabelEvaluation, names: Sequence[str]) -> CsvTable:
    rows = [asdict(label) for label in result.labels]
    return CsvTable(("label", *rows[0]), [(name, *row.values()) for name, row in zip(names, rows, strict=True)])


def _probabilities(found: Decisions, subject: Subject) -> CsvTable:
    names = subject.names
    rows = (
        (image, _listed(true, names), _listed(said, names), *scores.tolist())
        for image, true, said, scores in zip(subject.images, found.truth, found.answers, found.scores, strict=True)
    )
    return CsvTable(("image", "true", "predicted", *names), rows)


def _listed(flags: np.ndarray, names: Sequence[str]) -> str:
    return "|".join(names[place] for place in np.flatnonzero(flags).tolist())


def _label_lines(result: LabelEvaluation, subject: Subject) -> list[str]:
    absent = [name for name, label in zip(subject.names, result.labels, strict=True) if not label.positives]
    lines = [
        f"{subject.path}: mAP {percent(result.mean_ap)} on {result.samples} images and {len(result.labels)} labels, "
        f"mean AUC {number(result.mean_auc)}.",
        f"Decisions at a probability of {subject.threshold:g}: {result.accuracy:.2%} right, all labels of "
        f"{result.exact:.1%} of the images; F1 {percent(result.macro_f1)} (mean over labels), "
        f"{percent(result.micro_f1)} (all decisions together). Cross-entropy {result.nll:.4f}.",
        "thresholds.csv holds the threshold with the highest F1 of each label, chosen on these images, on which they "
        "are optimistic: measure them on others.",
    ]
    if absent:
        lines.append(f"{len(absent)} of the labels occur in no image and are left out of the means: {listed(absent)}.")
    return lines


def _show_labels(labels: Sequence[Decision], names: Sequence[str]) -> None:
    rows = [
        (
            name,
            percent(label.ap),
            number(label.auc),
            percent(label.precision),
            percent(label.recall),
            percent(label.f1),
            number(label.best_threshold),
            percent(label.best_f1),
            str(label.positives),
        )
        for name, label in zip(names, labels, strict=True)
    ]
    show_ranked(_LABEL_COLUMNS, rows, [label.ap for label in labels], "labels, by AP")
    if len(labels) > TABLED:
        click.echo("per_label.csv lists all labels.")


def _draw_worst(found: Decisions, subject: Subject, names: Sequence[str], path: Path) -> None:
    """Draw the images with the most confident mistakes, or the least confident answers if there are none."""
    confidence = np.where(found.answers, found.scores, 1 - found.scores)
    wrong = np.where(found.answers != found.truth, confidence, -1)
    mistaken = (wrong >= 0).any(axis=1)
    order = np.argsort(-wrong.max(axis=1), kind="stable")[: min(DRAWN, int(mistaken.sum()))]
    if not len(order):
        order = np.argsort(confidence.min(axis=1), kind="stable")[:DRAWN]
    images, _ = subject.read(order)
    titles = [_title(found, int(index), names) for index in order]
    plots.image_grid(images, titles, path)


def _title(found: Decisions, index: int, names: Sequence[str]) -> str:
    """Label with the most confident mistake of an image, or with its least confident answer, and the probability."""
    wrong, scores = found.answers[index] != found.truth[index], found.scores[index]
    likely = np.where(found.answers[index], scores, 1 - scores)
    place = int(np.argmax(np.where(wrong, likely, -1)) if wrong.any() else np.argmin(likely))
    true = "" if found.truth[index, place] else "not "
    return f"{true}{names[place]}\n{scores[place]:.0%}"
