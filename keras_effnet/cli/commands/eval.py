"""`keras-effnet eval`: the metrics of a `.keras` or `.tflite` file on labelled images, by its task.

docs/eval.md describes the folder that it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import decision_threshold, refuse_unused, tolerant, was_given
from keras_effnet.cli.parameter_types import Choice, Number, Whole
from keras_effnet.errors import UserError, listed
from keras_effnet.imagenet import readable
from keras_effnet.system.documents import json_text


@click.command("eval")
@click.argument("model")
@click.argument("data", required=False)
@click.option("--split", type=Choice(["train", "val", "test"]), help="Split; by default test if present, else val.")
@click.option(
    "--per-class", is_flag=True, help="Print the metrics of each class, label or value; of many, the worst and best."
)
@click.option(
    "--threshold",
    type=Number(0, 1),
    default=0.5,
    show_default=True,
    help="Probability from which on a binary network or a label says yes, or a box is counted (boxes: 0.3 by default).",
)
@click.option("--batch-size", type=Whole(1), default=32, show_default=True, help="Images per batch.")
@tolerant
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, data, split, per_class, threshold, batch_size, max_bad_files, skip_empty_classes, out, as_json):
    """Evaluate MODEL (.keras, .tflite or run folder) on DATA; by default on the held-out part of its training data."""
    console.prepare_tensorflow()
    from keras_effnet.cli.evaluations.findings import Subject
    from keras_effnet.cli.evaluations.table import EVALUATIONS
    from keras_effnet.inference import artifacts
    from keras_effnet.pipeline.batches import image_pipeline
    from keras_effnet.system.files import atomic_group
    from keras_effnet.system.run_folders import kept_if_used, new_run
    from keras_effnet.tasks import TASKS

    artifact = artifacts.load(model, batch_size=batch_size)
    if artifact.task not in EVALUATIONS:
        words = ("keras-effnet", "predict", "IMAGES", "--model", model, "--output", "vectors.npy")
        raise UserError(
            f"The task of {artifact.path} is {artifact.task}, which labels do not measure; "
            f"`{console.command_line(*words)}` writes the outputs."
        )
    learning = TASKS[artifact.task].learning
    if learning is None or learning.activation != "sigmoid":
        refuse_unused(["threshold"], f"the task of {artifact.path} is {artifact.task}, which takes none.")
    dataset, names = _data(artifact, model, data, max_bad_files, skip_empty_classes)
    part = getattr(dataset, split) if split else dataset.held_out
    if part is None:
        raise UserError(f"{dataset.name} has no {split} split.")
    detector: dict[str, Any] = {"detector": artifact.detector} if artifact.detector else {}
    batches = image_pipeline(part, artifact.image_spec, artifact.batch_size, **detector)
    progress = console.track(f"Evaluating {len(part)} images", -(-len(part) // artifact.batch_size))
    predicted = ((artifact.predict(images.numpy()), _arrays(labels)) for images, labels in progress(batches))
    threshold = decision_threshold(artifact.task, threshold)
    subject = Subject(artifact.path, names, part, artifact.image_spec, artifact.predict, threshold, artifact.detector)
    found = EVALUATIONS[artifact.task](predicted, subject)

    summary = found.summary | {"task": artifact.task, "model": str(model), "data": dataset.name}
    folder = new_run("eval", Path(model).resolve().stem, out)
    with kept_if_used(folder), atomic_group(folder) as staged:
        (staged / "results.json").write_text(json_text(summary) + "\n", encoding="utf-8")
        for name, table in found.tables.items():
            table.write(staged / name)
        for name, draw in found.drawings.items():
            draw(staged / name)

    if as_json:
        return console.emit_json(summary | {"run": str(folder)})
    if per_class:
        found.show_names()
    for line in found.lines:
        click.echo(line)
    console.finish(f"{folder} ({found.files})", ("keras-effnet", "predict", "IMAGE", "--model", model))


def _arrays(labels: Any) -> Any:
    """Labels as arrays, those of boxes in a dict."""
    return {name: each.numpy() for name, each in labels.items()} if isinstance(labels, dict) else labels.numpy()


def _data(artifact, model: str, data: str | None, max_bad_files: int, skip_empty_classes: bool):
    """Load the labelled images and their names, which must be those of the model."""
    from keras_effnet import datasets
    from keras_effnet.datasets.findings.data_identity import DATA, warn_if_changed
    from keras_effnet.inference.companions import companion
    from keras_effnet.inference.naming import class_names

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
        dataset = datasets.load(
            **{"image_size": size} | origin | {"task": artifact.task}, progress=console.track("Checking images")
        )
    # ImageNet folders are named by WordNet ids, the classes of its networks by words.
    known = readable(dataset.class_names)
    names = tuple(class_names(artifact)) if artifact.class_names else known
    expected = len(class_names(artifact))
    # Of a file that names the positive class alone, the negative one is not known.
    same = known[-1:] == names[-1:] if artifact.classes == 1 else known == names
    if not same or len(known) != expected:
        raise UserError(
            f"The model has {expected} classes{_some(names if artifact.class_names else ())}, the data has "
            f"{len(known)}{_some(known)}; they must be the same{_first_other(names, known)}."
        )
    if not data and (record := companion(artifact.path, DATA)):
        warn_if_changed(dataset, record.parent)
    return dataset, known


_NAMED = 3  # classes in a message


def _some(names: Sequence[str]) -> str:
    return f" ({listed(names, _NAMED)})" if names else ""


def _first_other(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Where two lists of as many names differ, for a message that shows the first few of each."""
    if len(ours) != len(theirs):
        return ""
    if {*ours} == {*theirs}:
        return ", in the same order"
    at = next(at for at, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
    return f": number {at} is {ours[at]!r} of the model, {theirs[at]!r} of the data"
