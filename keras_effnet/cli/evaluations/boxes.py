"""Findings of a detector. numpy, and TensorFlow to read images again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from keras_effnet.cli.evaluations.findings import TABLED, CsvTable, Findings, Subject, percent, show_ranked
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.errors import UserError
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task import box_drawings
from keras_effnet.evaluation.by_task.boxes import (
    BoxEvaluation,
    Scenes,
    collect_scenes,
    evaluate_boxes,
    labels_of,
    worst_scenes,
)

_DRAWN = 12  # images in worst.png
_COLUMNS = ("class", "AP", "precision", "recall", "boxes", "detections")


def find_boxes(batches: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, Any]]], subject: Subject) -> Findings:
    """Evaluate a detector."""
    if subject.detector is None:
        raise UserError(f"The anchors of {subject.path} are not known: put the detector.json of its run beside it.")
    size = (subject.image_spec.size, subject.image_spec.size)
    scenes = collect_scenes(batches, anchor_boxes(subject.detector, size), size)
    names = list(subject.names)
    result = evaluate_boxes(scenes, len(names), subject.threshold)
    rows = [{"class": name} | asdict(each) for name, each in zip(names, result.classes, strict=True)]
    order = np.argsort(-result.mistakes.sum(axis=1), kind="stable").tolist()
    mistakes = [(subject.images[place], *result.mistakes[place].tolist()) for place in order]
    figures = {name: value for name, value in asdict(result.ap).items() if name != "by_class"}
    totals = dict(zip(("missed", "false", "badly_placed"), result.mistakes.sum(axis=0).tolist(), strict=True))
    return Findings(
        summary={
            "samples": result.samples,
            **figures,
            "threshold": result.threshold,
            **totals,
            "classes": rows,
            "confusion": result.confusion,
        },
        tables={
            "per_class.csv": CsvTable(tuple(rows[0]), [tuple(row.values()) for row in rows]),
            "per_image.csv": CsvTable(("image", "missed", "false", "badly_placed"), mistakes),
        },
        drawings={
            "precision_recall.png": lambda path: box_drawings.precision_recall(scenes, result.ap.by_class, names, path),
            "confusion.png": lambda path: plots.confusion_matrix(result.confusion, labels_of(names), path),
            "worst.png": lambda path: _draw_worst(result, scenes, subject, path),
        },
        lines=_lines(result, subject, totals),
        show_names=lambda: _show(rows),
    )


def _lines(result: BoxEvaluation, subject: Subject, totals: Mapping[str, int]) -> list[str]:
    ap = result.ap
    boxes = sum(each.boxes for each in result.classes)
    sizes = zip(("small", "medium", "large"), (ap.small, ap.medium, ap.large), strict=True)
    lines = [
        f"{subject.path}: AP {percent(ap.ap)}, AP50 {percent(ap.ap50)}, AP75 {percent(ap.ap75)} on {result.samples} "
        f"images with {boxes:,} boxes.",
        "AP by size of the box: " + ", ".join(f"{name} {percent(value)}" for name, value in sizes) + ".",
        f"At a score of {result.threshold:g}: {totals['missed']:,} boxes missed, {totals['false']:,} false, "
        f"{totals['badly_placed']:,} badly placed.",
    ]
    known = [(each.ap, name) for each, name in zip(result.classes, subject.names, strict=True) if not np.isnan(each.ap)]
    if len(known) > 1:
        worst, best = min(known), max(known)
        lines.append(f"AP from {worst[0]:.1%} ({worst[1]}) to {best[0]:.1%} ({best[1]}).")
    return [*lines, "worst.png: missed boxes amber and dashed, false ones red, badly placed ones magenta."]


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    cells = [
        (
            row["class"],
            percent(row["ap"]),
            percent(row["precision"]),
            percent(row["recall"]),
            f"{row['boxes']:,}",
            f"{row['found']:,}",
        )
        for row in rows
    ]
    show_ranked(_COLUMNS, cells, [row["ap"] for row in rows], "classes, by AP")
    if len(rows) > TABLED:
        click.echo("per_class.csv lists all classes.")


def _draw_worst(result: BoxEvaluation, scenes: Scenes, subject: Subject, path: Path) -> None:
    from keras_effnet.pipeline.batches import image_pipeline

    chosen = np.array(worst_scenes(result, _DRAWN))
    inorder = np.sort(chosen)
    part = subject.part.select(inorder)
    options: dict[str, Any] = {"detector": subject.detector}
    images, labels = next(iter(image_pipeline(part, subject.image_spec, len(inorder), **options)))
    places = np.searchsorted(inorder, chosen)
    drawn, titles = [], []
    for index, place in zip(chosen.tolist(), places.tolist(), strict=True):
        scale = np.tile(np.asarray(labels["scale"])[place], 2)
        truth, found = scenes.truth[index], scenes.found[index]
        truth, found = replace(truth, boxes=truth.boxes * scale), replace(found, boxes=found.boxes * scale)
        drawn.append(box_drawings.judged_boxes(truth, found, result.verdicts[index], subject.names))
        missed, false, near = result.mistakes[index]
        image = subject.images[index]
        name = Path(image).name if isinstance(image, str) else f"image {image}"
        titles.append(f"{name}: {missed} missed, {false} false, {near} badly placed")
    box_drawings.box_grid(np.asarray(images)[places], drawn, titles, path)
