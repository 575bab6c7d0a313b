"""`keras-effnet predict`: answers of a `.keras` or `.tflite` file, run folder or published network, by its task."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.answers import ANSWERS, Question
from keras_effnet.cli.interruption import interrupted_status
from keras_effnet.cli.options import decision_threshold, refuse_unused, was_given
from keras_effnet.cli.parameter_types import Choice, Number, Whole
from keras_effnet.errors import UserError
from keras_effnet.inference.writers import COCO, FORMS, form_of, part_of, paths_of, saved_to, written, written_to

SHOWN = 50  # maximum rows of the table
ARRAY = ".npy"


@click.command("predict")
@click.argument("images", nargs=-1, required=True)
@click.option("--model", required=True, help="A .keras or .tflite file, a run folder, or a name like lite0.")
@click.option("--top", type=Whole(1), default=3, show_default=True, help="Classes per image.")
@click.option(
    "--threshold",
    type=Number(0, 1),
    default=0.5,
    show_default=True,
    help="Probability from which on a binary network or a label says yes, or a box is found (boxes: 0.3 by default). "
    "Labels of a run or an export with a thresholds.csv have their own, unless this is given.",
)
@click.option("--labels", type=click.Path(path_type=Path), help="File with one name per line.")
@click.option("--format", "form", type=Choice(["table", *FORMS]), help="Format of stdout or the file. [default: table]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File for all predictions: .csv, .json or .jsonl; .npy for embeddings.",
)
@click.option("--batch-size", type=Whole(1), default=32, show_default=True, help="Images per batch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(images, model, top, threshold, labels, form, output, batch_size, as_json) -> None:
    """Predict IMAGES: files, or folders, which are searched recursively.

    By the network's task: classes, a decision, labels, values, an embedding, a mask or boxes for each image.
    """
    if form == COCO and output is None:
        raise UserError(f"--format {COCO} writes a file: name it with --output results.json.")
    if as_json and form not in (None, "json") and output is None:
        raise UserError(f"--json and --format {form} exclude each other.")
    file_form = _file_form(output, form)
    shown = "json" if as_json else "table" if output else form or "table"
    console.prepare_tensorflow()
    from keras_effnet.inference import artifacts, image_files, naming

    artifact = artifacts.load(model, batch_size=batch_size)
    _refuse_unfit(artifact, output, form)
    answering = ANSWERS[artifact.task]
    names = naming.class_names(artifact, labels)
    paths = image_files.image_paths(images)
    _refuse_inputs(output, [*paths, artifact.path, *([labels] if labels else [])])
    if shown == "table" and len(paths) > SHOWN and output is None:
        output, file_form = _run_file(model), "csv"

    progress = console.track(f"Predicting {len(paths)} images", -(-len(paths) // artifact.batch_size))
    batches = image_files.image_batches(paths, artifact.image_spec, artifact.batch_size, progress)
    found = _in_originals(artifact) if artifact.task == "detection" else None
    own = None if was_given("threshold") else naming.thresholds(artifact)
    threshold = own or decision_threshold(artifact.task, threshold)
    asked = Question(names, top, threshold, lambda: _run_folder(model), found)
    rows: list[tuple[str, str]] = []
    done = 0
    try:
        with ExitStack() as stack:
            sinks = []
            if output and file_form:
                opened = saved_to(output) if file_form == ARRAY else written_to(output, file_form, answering.layout)
                sinks.append(stack.enter_context(opened))
            if shown != "table":
                sinks.append(stack.enter_context(written(sys.stdout, shown, answering.layout)))
            for path, answer in answering.answers(_outputs(artifact, batches), asked):
                for write in sinks:
                    write(path, answer)
                if len(rows) < SHOWN:
                    rows.append((Path(path).name, answering.shown(answer)))
                done += 1
    except KeyboardInterrupt:
        kept = f"; the finished rows are in {part_of(output)}" if output and part_of(output).is_file() and done else ""
        click.echo(f"interrupted after {done} of {len(paths)} images{kept}.", err=True)
        raise click.exceptions.Exit(interrupted_status()) from None
    if shown != "table":
        return
    console.table(("image", answering.header), rows)
    if done > len(rows):
        click.echo(f"... and {done - len(rows)} more in {output}.")
    where = f" in {output}" if output else ""
    if "folder" in vars(asked) and found:
        click.echo(f"Images with their boxes: {asked.folder}.")
    elif "folder" in vars(asked):
        click.echo(f"Masks and overlays, at the size of the network's input: {asked.folder}.")
    images = "image" if done == 1 else "images"
    console.finish(f"{done} {images} {answering.done} by {artifact.path}{where}", *_following(artifact, model, output))


def _in_originals(artifact):
    """Return the function that turns outputs of a detector into detections in pixels of the original images."""
    from keras_effnet.evaluation.by_task.boxes import found_boxes, scaled
    from keras_effnet.inference.detecting import anchors_of, input_size, original_scale

    anchors = anchors_of(artifact)

    def found(outputs, sizes):
        here = found_boxes(outputs, anchors, input_size(artifact))
        return [scaled(each, original_scale(artifact.image_spec, size)) for each, size in zip(here, sizes, strict=True)]

    return found


def _file_form(output: Path | None, form: str | None) -> str | None:
    """Return the format of the output file, checked before the network is loaded."""
    if output is None:
        return None
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise UserError(f"Cannot write {output}: it must be a file in a folder that exists.")
    if output.suffix == ARRAY and form not in FORMS:
        return ARRAY
    return form if form in FORMS else form_of(output)


def _refuse_unfit(artifact, output: Path | None, form: str | None) -> None:
    """Refuse options that the task of the network has no use for."""
    from keras_effnet.tasks import TASKS

    because = f"the task of {artifact.path} is {artifact.task}."
    learning = TASKS[artifact.task].learning
    if learning is None or learning.activation != "sigmoid":
        refuse_unused(["threshold"], because)
    if artifact.task != "classification":
        refuse_unused(["top"], because)
    if artifact.task != "detection" and form == COCO:
        raise UserError(f"--format {COCO} is for boxes, but {because}")
    if artifact.task != "embedding" and output is not None and output.suffix == ARRAY:
        raise UserError(f"{output} would hold embeddings, but {because} End the name in .csv, .json or .jsonl.")


def _refuse_inputs(output: Path | None, inputs: Iterable[str | Path]) -> None:
    """Refuse to replace a file that the command reads."""
    outputs = [] if output is None else [output, paths_of(output)] if output.suffix == ARRAY else [output]
    read = {Path(path).resolve() for path in inputs}
    for each in outputs:
        if each.resolve() in read:
            raise UserError(f"{each} is an input of this command: write the predictions to another file.")


def _run_folder(model: str) -> Path:
    from keras_effnet.system.run_folders import new_run

    return new_run("predict", Path(model).resolve().stem)


def _run_file(model: str) -> Path:
    """Return an output file in a new run folder, for more predictions than the table shows."""
    return _run_folder(model) / "predictions.csv"


def _following(artifact, model: str, output: Path | None) -> tuple[tuple[str, ...], str]:
    """Return the words of the next command and a note."""
    if output is None:
        return ("keras-effnet", "predict", "IMAGES", "--model", model, "--output", "predictions.csv"), ""
    if artifact.model is None:
        return ("keras-effnet", "benchmark", artifact.path), ""
    if artifact.task != "classification":
        return ("keras-effnet", "export", model), ""
    return ("keras-effnet", "explain", "IMAGE", "--model", model), "Grad-CAM heat map"


def _outputs(artifact, batches):
    """Yield paths, images and outputs of each batch."""
    from keras_effnet.evaluation.metrics import check_finite

    for paths, pixels in batches:
        outputs = artifact.predict(pixels)
        for values in outputs.values() if isinstance(outputs, dict) else [outputs]:
            check_finite(values)
        yield paths, pixels, outputs
