"""`keras-effnet eval`: accuracy of a `.keras` or `.tflite` file, by class, with the confusion matrix."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import click

from keras_effnet import console
from keras_effnet.errors import UserError
from keras_effnet.imagenet import readable

BATCH = 64


@click.command("eval")
@click.argument("model")
@click.argument("data", required=False)
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Which part; test by default, else val.")
@click.option("--per-class", is_flag=True, help="Accuracy of each class.")
@click.option("--max-bad-files", type=int, default=10, show_default=True, help="Undecodable files that are tolerated.")
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, data, split, per_class, max_bad_files, out, as_json) -> None:
    """Measure MODEL (.keras, .tflite or run folder) on DATA; by default on the data it was trained on, held out."""
    console.prepare_tensorflow()
    import numpy as np

    from keras_effnet import artifacts, datasets, plots
    from keras_effnet.evaluation import evaluate
    from keras_effnet.pipeline import image_pipeline
    from keras_effnet.runs import new_run, write_text

    artifact = artifacts.load(model)
    origin = {"source": data, "max_bad_files": max_bad_files} if data else artifact.data_origin
    if not origin:
        raise UserError(f"Name the data: `keras-effnet eval {model} FOLDER`; nothing beside the model says which.")
    size = artifact.image_spec.size
    dataset = datasets.load(**{"image_size": size} | origin, progress=console.track("Checking pictures"))
    # ImageNet's folders bear WordNet ids, its networks words.
    known = readable(dataset.class_names)
    names = readable(artifact.class_names or dataset.class_names)
    if known != names or len(names) != artifact.classes:
        raise UserError(
            f"The model knows {artifact.classes} classes ({', '.join(names[:3])}...), the data has "
            f"{len(known)} ({', '.join(known[:3])}...); they must be the same."
        )
    part = getattr(dataset, split) if split else dataset.held_out
    if part is None:
        raise UserError(f"{dataset.name} has no {split} split.")
    batches = image_pipeline(part, artifact.image_spec, BATCH)
    progress = console.track(f"Evaluating {len(part)} pictures", len(batches))
    # Batch by batch: a large validation set does not fit into memory at once.
    result = evaluate(
        np.concatenate([artifact.predict(images.numpy()) for images, _ in progress(batches)]), part.labels
    )

    folder = new_run("eval", Path(model).resolve().stem, out)
    shares = [None if math.isnan(share) else share for share in result.per_class]  # NaN is no JSON
    described = {"per_class": shares, "confusion": result.confusion.tolist()}
    summary = asdict(result) | described | {"model": str(model), "data": dataset.name}
    write_text(folder / "results.json", json.dumps(summary, indent=2) + "\n")
    plots.confusion_matrix(result.confusion, names, folder / "confusion.png")
    if as_json:
        return console.emit_json(summary | {"run": str(folder)})
    if per_class:
        rows = zip(names, result.per_class, result.confusion.sum(axis=1), strict=True)
        console.table(("class", "accuracy", "pictures"), [(n, f"{share:.1%}", str(count)) for n, share, count in rows])
    click.echo(
        f"{artifact.path}: {result.accuracy:.2%} of {result.samples} pictures right, top five {result.top5:.2%}."
    )
    console.finish(f"{folder} (results.json, confusion.png)", f"keras-effnet predict PICTURE --model {model}")
