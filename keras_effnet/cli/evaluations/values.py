"""Findings of networks that predict numbers. numpy, and TensorFlow to read images again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from keras_effnet.cli import console
from keras_effnet.cli.evaluations.findings import DRAWN, CsvTable, Findings, Subject, number
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task import drawings
from keras_effnet.evaluation.by_task.outputs import Batches
from keras_effnet.evaluation.by_task.values import (
    ValueErrors,
    ValueEvaluation,
    Values,
    collect_values,
    evaluate_values,
    worst_values,
)

_COLUMNS = ("value", "MAE", "RMSE", "largest error", "bias", "R²", "from", "to")


def find_values(batches: Batches, subject: Subject) -> Findings:
    """Evaluate a network that predicts numbers."""
    found = collect_values(batches)
    result, names = evaluate_values(found), subject.names
    rows = [{"value": name} | asdict(each) for name, each in zip(names, result.values, strict=True)]
    return Findings(
        summary={"samples": result.samples, "mae": result.mae, "r2": result.r2, "values": rows},
        tables={
            "per_value.csv": CsvTable(tuple(rows[0]), [tuple(row.values()) for row in rows]),
            "predictions.csv": _predictions(found, subject),
        },
        drawings={
            "scatter.png": lambda path: drawings.scatter(found, result.values, names, path),
            "worst.png": lambda path: _draw_worst(found, subject, path),
        },
        lines=_lines(result, subject),
        show_names=lambda: _show(result.values, names),
    )


def _predictions(found: Values, subject: Subject) -> CsvTable:
    header = ("image", *(f"{side}_{name}" for side in ("true", "predicted") for name in subject.names))
    rows = (
        (image, *true.tolist(), *said.tolist())
        for image, true, said in zip(subject.images, found.truth, found.predicted, strict=True)
    )
    return CsvTable(header, rows)


def _lines(result: ValueEvaluation, subject: Subject) -> list[str]:
    lines = [f"{subject.path}: {result.samples} images."]
    for name, each in list(zip(subject.names, result.values, strict=True))[:8]:
        span = f"true values from {each.low:.4g} to {each.high:.4g}"
        lines.append(
            f"{name}: mean absolute error {each.mae:.4g} (RMSE {each.rmse:.4g}, largest {each.max_error:.4g}), bias "
            f"{each.bias:+.4g}, R² {number(each.r2)}; {span}."
        )
    if any(math.isnan(each.r2) for each in result.values):
        lines.append("R² is not defined for a value that is the same in all images.")
    return lines


def _show(values: Sequence[ValueErrors], names: Sequence[str]) -> None:
    rows = [
        (name, *map(number, (each.mae, each.rmse, each.max_error, each.bias, each.r2, each.low, each.high)))
        for name, each in zip(names, values, strict=True)
    ]
    console.table(_COLUMNS, rows)


def _draw_worst(found: Values, subject: Subject, path: Path) -> None:
    """Draw the images with the largest errors."""
    chosen = worst_values(found, DRAWN)
    images, _ = subject.read(chosen)
    titles = [
        f"true {found.truth[index, 0]:.4g}\nas {found.predicted[index, 0]:.4g}"
        if found.truth.shape[1] == 1
        else f"largest error\n{abs(found.predicted[index] - found.truth[index]).max():.4g}"
        for index in chosen
    ]
    plots.image_grid(images, titles, path)
