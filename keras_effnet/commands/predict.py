"""`keras-effnet predict`: what is on pictures, by any `.keras`, `.tflite`, run folder or published network."""

from __future__ import annotations

from pathlib import Path

import click

from keras_effnet import console
from keras_effnet.errors import UserError


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
    from keras_effnet.images import list_pictures
    from keras_effnet.preprocessing import decode_predictions

    artifact = artifacts.load(model)
    paths = [path for item in pictures for path in (list_pictures(item) if Path(item).is_dir() else [item])]
    if not paths:
        raise UserError(f"No pictures in {', '.join(pictures)}.")
    names = _names(labels, artifact)
    results, failures = {}, []
    for path in console.track("Predicting", len(paths))(paths):
        try:
            probabilities = artifact.predict(artifacts.picture(path, artifact.image_spec))
        except UserError as error:
            failures.append(str(error))
            continue
        results[path] = decode_predictions(probabilities, top=top, class_names=names)[0]
    if not results:
        raise UserError(failures[0])
    for failure in failures:
        click.echo(f"warning: skipped: {failure}", err=True)
    if as_json:
        return console.emit_json(results)
    described = [", ".join(f"{name} {share:.1%}" for name, share in best) for best in results.values()]
    rows = [(Path(path).name, text) for path, text in zip(results, described, strict=True)]
    console.table(("picture", "classes"), rows)
    console.finish(f"{len(results)} pictures by {artifact.path}", "keras-effnet predict ... --json > predictions.json")


def _names(labels: Path | None, artifact) -> list[str]:
    if labels is None:
        return list(artifact.class_names or (f"class {index}" for index in range(artifact.classes)))
    if not labels.is_file():
        raise UserError(f"Labels file {labels} does not exist.")
    return labels.read_text().splitlines()
