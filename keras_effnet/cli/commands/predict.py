"""`keras-effnet predict`: classify images with a `.keras` or `.tflite` file, run folder or published network."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import Choice, Whole
from keras_effnet.errors import UserError
from keras_effnet.inference.writers import FORMS, form_of, part_of, written, written_to

SHOWN = 50  # maximum rows of the table


@click.command("predict")
@click.argument("images", nargs=-1, required=True)
@click.option("--model", required=True, help="A .keras or .tflite file, a run folder, or a name like lite0.")
@click.option("--top", type=Whole(1), default=3, show_default=True, help="Classes per image.")
@click.option("--labels", type=click.Path(path_type=Path), help="File with one class name per line.")
@click.option("--format", "form", type=Choice(["table", *FORMS]), help="Format of stdout or the file. [default: table]")
@click.option("--output", type=click.Path(path_type=Path), help="File for all predictions: .csv, .json or .jsonl.")
@click.option("--batch-size", type=Whole(1), default=32, show_default=True, help="Images per batch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(images, model, top, labels, form, output, batch_size, as_json) -> None:
    """Classify IMAGES: files, or folders, which are searched recursively."""
    if as_json and form not in (None, "json") and output is None:
        raise UserError(f"--json and --format {form} exclude each other.")
    file_form = _file_form(output, form)
    shown = "json" if as_json else "table" if output else form or "table"
    console.prepare_tensorflow()
    from keras_effnet.inference import artifacts, image_files

    artifact = artifacts.classifier(artifacts.load(model, batch_size=batch_size))
    names = artifacts.class_names(artifact, labels)
    paths = image_files.image_paths(images)
    _refuse_inputs(output, [*paths, artifact.path, *([labels] if labels else [])])
    if shown == "table" and len(paths) > SHOWN and output is None:
        output, file_form = _run_file(model), "csv"

    progress = console.track(f"Predicting {len(paths)} images", -(-len(paths) // artifact.batch_size))
    batches = image_files.image_batches(paths, artifact.image_spec, artifact.batch_size, progress)
    rows: list[tuple[str, str]] = []
    done = 0
    try:
        with ExitStack() as stack:
            sinks = [stack.enter_context(written_to(output, file_form))] if output and file_form else []
            if shown != "table":
                sinks.append(stack.enter_context(written(sys.stdout, shown)))
            for path, best in _answers(artifact, batches, names, top):
                for write in sinks:
                    write(path, best)
                if len(rows) < SHOWN:
                    rows.append((Path(path).name, ", ".join(f"{name} {share:.1%}" for name, share in best)))
                done += 1
    except KeyboardInterrupt:
        kept = f"; the finished rows are in {part_of(output)}" if output and done else ""
        click.echo(f"interrupted after {done} of {len(paths)} images{kept}.", err=True)
        raise click.exceptions.Exit(console.INTERRUPTED) from None
    if shown != "table":
        return
    console.table(("image", "classes"), rows)
    if done > len(rows):
        click.echo(f"... and {done - len(rows)} more in {output}.")
    where = f" in {output}" if output else ""
    console.finish(f"{done} images classified by {artifact.path}{where}", *_following(artifact, model, output))


def _file_form(output: Path | None, form: str | None) -> str | None:
    """Return the format of the output file, checked before the network is loaded."""
    if output is None:
        return None
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise UserError(f"Cannot write {output}: it must be a file in a folder that exists.")
    return form if form in FORMS else form_of(output)


def _refuse_inputs(output: Path | None, inputs: Iterable[str | Path]) -> None:
    """Refuse to replace a file that the command reads."""
    if output is not None and output.resolve() in {Path(path).resolve() for path in inputs}:
        raise UserError(f"{output} is an input of this command: write the predictions to another file.")


def _run_file(model: str) -> Path:
    """Return an output file in a new run folder, for more predictions than the table shows."""
    from keras_effnet.system.run_folders import new_run

    return new_run("predict", Path(model).resolve().stem) / "predictions.csv"


def _following(artifact, model: str, output: Path | None) -> tuple[tuple[str, ...], str]:
    """Return the words of the next command and a note."""
    if output is None:
        return ("keras-effnet", "predict", "IMAGES", "--model", model, "--output", "predictions.csv"), ""
    if artifact.model is None:
        return ("keras-effnet", "benchmark", artifact.path), ""
    return ("keras-effnet", "explain", "IMAGE", "--model", model), "Grad-CAM heat map"


def _answers(artifact, batches, names, top):
    """Yield the path and best classes of each image, with probabilities even if the network outputs logits."""
    from keras_effnet.evaluation.metrics import check_finite, score_kind, softmax
    from keras_effnet.imagenet import decode_predictions

    logits = False
    for paths, pixels in batches:
        scores = artifact.predict(pixels)
        check_finite(scores)
        if not logits and score_kind(scores) == "logits":
            logits = True
            click.echo("note: the network outputs logits; probabilities are computed by softmax.", err=True)
        yield from zip(paths, decode_predictions(softmax(scores) if logits else scores, top, names), strict=True)
