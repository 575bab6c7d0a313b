"""`keras-effnet predict`: what is on pictures, by any `.keras`, `.tflite`, run folder or published network."""

from __future__ import annotations

from pathlib import Path

import click

from keras_effnet import console


@click.command("predict")
@click.argument("pictures", nargs=-1, required=True)
@click.option("--model", required=True, help="A .keras or .tflite file, a run folder, or a name like lite0.")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes a picture.")
@click.option("--labels", type=click.Path(path_type=Path), help="File with one class name a line.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(pictures, model, top, labels, as_json) -> None:
    """Name what is on PICTURES: files, or folders of files."""
    console.prepare_tensorflow()
    from keras_effnet import artifacts
    from keras_effnet.preprocessing import decode_predictions

    artifact = artifacts.load(model)
    names = artifacts.class_names(artifact, labels)
    each = artifacts.each_picture(pictures, artifact.image_spec, console.track("Predicting"))
    results = {
        path: decode_predictions(artifact.predict(pixels), top=top, class_names=names)[0] for path, pixels in each
    }
    if as_json:
        return console.emit_json(results)
    described = [", ".join(f"{name} {share:.1%}" for name, share in best) for best in results.values()]
    rows = [(Path(path).name, text) for path, text in zip(results, described, strict=True)]
    console.table(("picture", "classes"), rows)
    console.finish(f"{len(results)} pictures by {artifact.path}", "keras-effnet predict ... --json > predictions.json")
