"""`keras-effnet eval`: accuracy, per-class metrics and calibration of a `.keras` or `.tflite` file.

docs/eval.md describes the folder that it writes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import Choice, Whole, tolerant, was_given
from keras_effnet.errors import UserError
from keras_effnet.imagenet import readable
from keras_effnet.system.documents import json_text

if TYPE_CHECKING:
    from keras_effnet.evaluation.metrics import Evaluation

DRAWN = 24  # mistakes on the contact sheet
TABLED = 20  # up to this many classes, all are shown
MATRIX_IN_JSON = 100  # up to this many classes, the confusion matrix is included: larger ones are mostly zeros
FILES = "results.json, per_class.csv, predictions.csv, confusion.png, reliability.png, worst.png"
NOTES = {
    "logits": "The network outputs logits; probabilities are computed by softmax.",
    "scores": "The outputs do not sum to 1 (sigmoids, or values rounded to 8 bits); they are used unchanged.",
}


@click.command("eval")
@click.argument("model")
@click.argument("data", required=False)
@click.option("--split", type=Choice(["train", "val", "test"]), help="Split; by default test if present, else val.")
@click.option(
    "--per-class", is_flag=True, help="Print precision, recall and F1 per class; of many, the worst and best."
)
@click.option("--batch-size", type=Whole(1), default=32, show_default=True, help="Images per batch.")
@tolerant
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, data, split, per_class, batch_size, max_bad_files, skip_empty_classes, out, as_json) -> None:
    """Evaluate MODEL (.keras, .tflite or run folder) on DATA; by default on the held-out part of its training data."""
    console.prepare_tensorflow()
    from keras_effnet.evaluation import plots
    from keras_effnet.evaluation.metrics import collect_outcomes, compute_metrics, reliability
    from keras_effnet.inference import artifacts
    from keras_effnet.pipeline.batches import image_pipeline
    from keras_effnet.system.files import atomic_group
    from keras_effnet.system.run_folders import kept_if_used, new_run

    artifact = artifacts.classifier(artifacts.load(model, batch_size=batch_size))
    dataset, names = _data(artifact, model, data, max_bad_files, skip_empty_classes)
    part = getattr(dataset, split) if split else dataset.held_out
    if part is None:
        raise UserError(f"{dataset.name} has no {split} split.")
    batches = image_pipeline(part, artifact.image_spec, artifact.batch_size)
    progress = console.track(f"Evaluating {len(part)} images", -(-len(part) // artifact.batch_size))
    predicted = ((artifact.predict(images.numpy()), labels.numpy()) for images, labels in progress(batches))
    outcomes = collect_outcomes(predicted)
    result = compute_metrics(outcomes)
    bins = reliability(outcomes.confidence, outcomes.correct)

    summary = _summary(result, bins, names) | {"scores": outcomes.scores, "model": str(model), "data": dataset.name}
    classes = _per_class(result, names)
    title = f"ECE {result.ece:.2%}, {result.samples} images"
    folder = new_run("eval", Path(model).resolve().stem, out)
    with kept_if_used(folder), atomic_group(folder) as staged:
        (staged / "results.json").write_text(json_text(summary) + "\n", encoding="utf-8")
        _write_csv(staged / "per_class.csv", classes[0], (map(_cell, row.values()) for row in classes))
        _write_csv(staged / "predictions.csv", *_predictions(outcomes, part, names))
        plots.confusion_matrix(result.confusion, names, staged / "confusion.png")
        plots.reliability(bins.counts, bins.confidence, bins.accuracy, title, staged / "reliability.png")
        _draw_worst(outcomes, part, artifact.image_spec, names, staged / "worst.png")

    if as_json:
        return console.emit_json(summary | {"run": str(folder)})
    if per_class:
        _show_classes(classes)
    _show(result, outcomes, names, artifact.path)
    console.finish(f"{folder} ({FILES})", ("keras-effnet", "predict", "IMAGE", "--model", model))


def _data(artifact, model: str, data: str | None, max_bad_files: int, skip_empty_classes: bool):
    """Load the labelled images and their class names, which must be those of the model."""
    from keras_effnet import datasets
    from keras_effnet.datasets.labels.conversion import require_task

    tolerated = {"max_bad_files": max_bad_files} if data or was_given("max_bad_files") else {}
    origin = {"source": data} if data else artifact.data_origin
    if not origin:
        command_line = console.command_line("keras-effnet", "eval", model, "FOLDER")
        raise UserError(f"Name the data: `{command_line}`; the model does not record its data.")
    origin = origin | tolerated
    if skip_empty_classes:
        origin = origin | {"skip_empty_classes": True}
    size = artifact.image_spec.size
    with console.hushed():
        dataset = datasets.load(**{"image_size": size} | origin, progress=console.track("Checking images"))
    require_task(dataset.name, dataset.task, artifact.task, f"The network is for {artifact.task}.")
    # ImageNet folders are named by WordNet ids, the classes of its networks by words.
    known = readable(dataset.class_names)
    names = readable(artifact.class_names or dataset.class_names)
    if known != names or len(names) != artifact.classes:
        raise UserError(
            f"The model has {artifact.classes} classes{_some(names if artifact.class_names else ())}, the data has "
            f"{len(known)}{_some(known)}; they must be the same."
        )
    return dataset, names


def _some(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:3])}...)" if names else ""


def _summary(result, bins, names: Sequence[str]) -> dict[str, object]:
    from keras_effnet.evaluation.metrics import most_confused

    mistakes = [
        {"true": names[true], "predicted": names[predicted], "count": count}
        for true, predicted, count in most_confused(result.confusion, 10)
    ]
    calibration = {
        "counts": bins.counts,
        "confidence": bins.confidence,
        "accuracy": bins.accuracy,
    }
    matrix = result.confusion if len(names) <= MATRIX_IN_JSON else None
    described = {"support": result.support, "most_confused": mistakes, "reliability": calibration, "confusion": matrix}
    return asdict(result) | described


_ClassRow = TypedDict("_ClassRow", {"class": str, "precision": float, "recall": float, "f1": float, "images": int})


def _per_class(result: Evaluation, names: Sequence[str]) -> list[_ClassRow]:
    columns = zip(names, result.precision, result.per_class, result.f1, result.support, strict=True)
    return [
        {"class": name, "precision": precision, "recall": recall, "f1": f1, "images": count}
        for name, precision, recall, f1, count in columns
    ]


def _predictions(outcomes, part, names: Sequence[str]) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    """Return header and rows of predictions.csv, in the order of the split."""
    # Images that are not files are identified by their index in the split.
    images = part.images if isinstance(part.images, tuple) else range(len(part))
    numbers = zip(outcomes.labels, outcomes.predicted, outcomes.confidence, outcomes.likelihood, strict=True)
    rows = (
        (image, names[true], names[predicted], f"{share:.6g}", f"{likelihood:.6g}")
        for image, (true, predicted, share, likelihood) in zip(images, numbers, strict=True)
    )
    return ("image", "true", "predicted", "probability", "probability_of_true"), rows


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    # File names may be invalid text.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _draw_worst(outcomes, part, image_spec, names: Sequence[str], path: Path) -> None:
    """Draw the most confident mistakes, or the least confident predictions if there are none."""
    import numpy as np

    from keras_effnet.evaluation import plots
    from keras_effnet.evaluation.metrics import least_certain, worst_mistakes
    from keras_effnet.pipeline.batches import image_pipeline

    chosen = worst_mistakes(outcomes, DRAWN)
    if not len(chosen):
        chosen = least_certain(outcomes, DRAWN)
    # Only these images are read again. Some sources return them in their own order, whatever order is requested.
    inorder = np.sort(chosen)
    batches = image_pipeline(part.select(inorder), image_spec, len(inorder))
    images = np.concatenate([pixels.numpy() for pixels, _ in batches])[np.searchsorted(inorder, chosen)]
    plots.image_grid(images, [_title(outcomes, index, names) for index in chosen], path)


def _title(outcomes, index: int, names: Sequence[str]) -> str:
    true, said = (_brief(names[classes[index]]) for classes in (outcomes.labels, outcomes.predicted))
    answer = f"{said}  {outcomes.confidence[index]:.0%}"
    return answer if outcomes.correct[index] else f"{true}\nas {answer}"


def _brief(name: str, width: int = 18) -> str:
    """Shorten a class name so that it fits above an image."""
    return name if len(name) <= width else f"{name[: width - 3]}..."


def _show_classes(classes: Sequence[_ClassRow]) -> None:
    """Print a table of all classes, or of the ten worst and the ten best if there are many."""

    def row(one: _ClassRow) -> tuple[str, ...]:
        shares = (one["precision"], one["recall"], one["f1"])
        return (one["class"], *("-" if math.isnan(share) else f"{share:.1%}" for share in shares), str(one["images"]))

    headers = tuple(classes[0])
    if len(classes) <= TABLED:
        return console.table(headers, map(row, classes))
    ranked = sorted((one for one in classes if one["images"]), key=lambda one: one["f1"])
    half = TABLED // 2
    console.table(headers, map(row, ranked[:half]), title=f"The worst of {len(classes)} classes, by F1")
    console.table(headers, map(row, ranked[half:][-half:]), title="The best")
    click.echo("per_class.csv lists all classes.")


def _show(result, outcomes, names: Sequence[str], path: Path) -> None:
    from keras_effnet.evaluation.metrics import most_confused

    click.echo(f"{path}: accuracy {result.accuracy:.2%} on {result.samples} images, top-5 {result.top5:.2%}.")
    if outcomes.scores in NOTES:
        click.echo(NOTES[outcomes.scores])
    sides = f"mean confidence {result.confidence:.1%}, accuracy {result.accuracy:.1%}"
    click.echo(f"Calibration error (ECE) {result.ece:.2%}: {sides}. Cross-entropy {result.nll:.4f}.")
    pairs = [f"{names[true]} as {names[said]} ({count})" for true, said, count in most_confused(result.confusion, 5)]
    if pairs:
        click.echo(f"Most frequent confusions: {', '.join(pairs)}.")
        click.echo(f"worst.png shows the most confident of {int((~outcomes.correct).sum())} mistakes.")
    else:
        click.echo("No mistakes; worst.png shows the least confident predictions.")
