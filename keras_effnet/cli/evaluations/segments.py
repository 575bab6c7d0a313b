"""Findings of a segmentation. numpy, and TensorFlow to read images again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from keras_effnet.cli.evaluations.findings import TABLED, CsvTable, Findings, Subject, percent, show_ranked
from keras_effnet.errors import listed
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.agreement import masks
from keras_effnet.evaluation.by_task import drawings
from keras_effnet.evaluation.by_task.outputs import Batches
from keras_effnet.evaluation.by_task.segments import MaskEvaluation, evaluate_masks, worst_masks

_DRAWN = 12  # rows of image, true mask and predicted mask


def find_segments(batches: Batches, subject: Subject) -> Findings:
    """Evaluate a segmentation."""
    result, names = evaluate_masks(batches), subject.names
    columns = (result.iou, result.precision, result.recall, result.pixels)
    rows = [
        {"class": name, "iou": iou, "precision": precision, "recall": recall, "pixels": pixels}
        for name, iou, precision, recall, pixels in zip(names, *columns, strict=True)
    ]
    shares = sorted(zip(subject.images, result.image_iou.tolist(), strict=True), key=_rank)
    return Findings(
        summary={
            "samples": result.samples,
            "mean_iou": result.mean_iou,
            "pixel_accuracy": result.accuracy,
            "ignored_pixels": result.ignored,
            "classes": rows,
            "confusion": result.confusion,
        },
        tables={
            "per_class.csv": CsvTable(tuple(rows[0]), [tuple(row.values()) for row in rows]),
            "per_image.csv": CsvTable(("image", "iou"), shares),
        },
        drawings={
            "confusion.png": lambda path: plots.confusion_matrix(result.confusion, names, path),
            "classes.png": lambda path: drawings.bars({"IoU": result.iou, "recall": result.recall}, names, path),
            "worst.png": lambda path: _draw_worst(result, subject, path),
        },
        lines=_lines(result, subject),
        show_names=lambda: _show(rows),
    )


def _rank(row: tuple[object, float]) -> float:
    return float("inf") if np.isnan(row[1]) else row[1]


def _lines(result: MaskEvaluation, subject: Subject) -> list[str]:
    total = int(result.confusion.sum()) + result.ignored
    ignored = f", {result.ignored / total:.1%} of them ignored" if result.ignored else ""
    lines = [
        f"{subject.path}: mean IoU {percent(result.mean_iou)} on {result.samples} images, pixel accuracy "
        f"{percent(result.accuracy)} ({total:,} pixels{ignored})."
    ]
    known = [(iou, name) for iou, name in zip(result.iou, subject.names, strict=True) if not np.isnan(iou)]
    if known:
        worst, best = min(known), max(known)
        lines.append(f"IoU from {worst[0]:.1%} ({worst[1]}) to {best[0]:.1%} ({best[1]}).")
    absent = [name for name, pixels in zip(subject.names, result.pixels, strict=True) if not pixels]
    if absent:
        lines.append(f"No pixel of the true masks is of the class {listed(absent)}.")
    return [*lines, "worst.png shows the images with the lowest IoU: image, true mask, predicted mask."]


def _show(rows: Sequence[dict]) -> None:
    cells = [
        (row["class"], percent(row["iou"]), percent(row["precision"]), percent(row["recall"]), f"{row['pixels']:,}")
        for row in rows
    ]
    show_ranked(tuple(rows[0]), cells, [row["iou"] for row in rows], "classes, by IoU")
    if len(rows) > TABLED:
        click.echo("per_class.csv lists all classes.")


def _draw_worst(result: MaskEvaluation, subject: Subject, path: Path) -> None:
    chosen = worst_masks(result, _DRAWN)
    images, truths = subject.read(chosen)
    predicted = masks(subject.predict(images))
    titles = [f"{_name(subject.images[index])}  IoU {percent(result.image_iou[index])}" for index in chosen.tolist()]
    drawings.mask_rows(images, truths, predicted, titles, subject.names, path)


def _name(image: object) -> str:
    return Path(image).name if isinstance(image, str) else f"image {image}"
