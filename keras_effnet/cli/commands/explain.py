"""`keras-effnet explain`: Grad-CAM heat maps, drawn beside the prediction."""

from __future__ import annotations

from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.answers import free_file
from keras_effnet.cli.parameter_types import Whole
from keras_effnet.errors import UserError, unknown

_EXPLAINED = ("class", "flags")  # kinds of labels


@click.command("explain")
@click.argument("images", nargs=-1, required=True)
@click.option("--model", required=True, help="A .keras file, a run folder, or a name like lite0.")
@click.option(
    "--class",
    "--label",
    "wanted",
    metavar="NAME",
    help="Name or index of a class or label; the predicted one by default.",
)
@click.option("--layer", metavar="NAME", help="Feature map to use, such as block5c; the last by default.")
@click.option("--top", type=Whole(1, 20), default=3, show_default=True, help="Classes listed per image.")
@click.option("--labels", type=click.Path(path_type=Path), help="File with one class name per line.")
@click.option("--out", default="runs", show_default=True, help="Folder of all runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(images, model, wanted, layer, top, labels, out, as_json) -> None:
    """Draw Grad-CAM heat maps for IMAGES (files or folders): the regions that support a class."""
    console.prepare_tensorflow()
    from keras_effnet.evaluation import plots
    from keras_effnet.evaluation.gradcam import explainer
    from keras_effnet.imagenet import decode_predictions
    from keras_effnet.inference import artifacts, image_files, naming
    from keras_effnet.system.run_folders import kept_if_used, new_run
    from keras_effnet.tasks import TASKS

    artifact = artifacts.load(model)
    learning = TASKS[artifact.task].learning
    if learning is None or learning.labels not in _EXPLAINED:
        raise UserError(f"Heat maps are of classes and labels, and the task of {artifact.path} is {artifact.task}.")
    if artifact.model is None:
        raise UserError(f"{artifact.path} has no gradients; pass the .keras file or the run folder it was made from.")
    names = naming.class_names(artifact, labels)
    index = None if wanted is None else _class_index(wanted, names)
    explain = explainer(artifact.model, layer)
    folder: Path | None = None
    results: dict[str, dict[str, object]] = {}
    for path, pixels in image_files.each_image(images, artifact.image_spec, console.track("Explaining")):
        seen = artifacts.network_input(pixels, artifact.image_spec)
        heat = explain(seen[0], index)
        best = decode_predictions(heat.probabilities[None], top=top, class_names=names)[0]
        explained = (names[heat.class_index], heat.probability)
        if explained not in best:
            best.append(explained)
        folder = folder or new_run("explain", Path(model).resolve().stem, out)  # not created if every image is rejected
        drawn = free_file(folder, Path(path).stem, ".png")
        with kept_if_used(folder):
            plots.explanation(pixels[0], heat.map, best, best.index(explained), drawn)
        results[path] = {"class": explained[0], "probability": explained[1], "layer": heat.layer, "drawn": str(drawn)}
    if as_json:
        return console.emit_json(results)
    rows = [
        (Path(path).name, f"{result['class']} {result['probability']:.1%}", Path(str(result["drawn"])).name)
        for path, result in results.items()
    ]
    console.table(("image", "class explained", "drawn"), rows)
    console.finish(str(folder), ("keras-effnet", "explain", "IMAGE", "--model", model, "--class", "NAME"))


def _class_index(wanted: str, names: list[str]) -> int:
    """Return the index of a class given by name or index. Names take precedence: those of digits are numbers too."""
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    raise UserError(unknown("class", wanted, names))
