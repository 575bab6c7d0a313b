"""`keras-effnet export`: `.tflite` files at several precisions, each one run and compared."""

from __future__ import annotations

from pathlib import Path

import click

from keras_effnet import console
from keras_effnet.errors import UserError
from keras_effnet.imagenet import readable

MAX_HELD_OUT = 500  # pictures to compare on; they are held in memory


def _sources(artifact, calibration, samples, seed, max_bad_files):
    """Calibration pictures and held-out ones: of a labelled dataset its splits, of loose pictures two halves."""
    from keras_effnet import datasets
    from keras_effnet.export.calibration import load_pictures

    size = artifact.image_spec.size
    if calibration is None:
        if not artifact.data_origin:
            return None, None
        dataset = datasets.load(**{"image_size": size} | artifact.data_origin)
        return dataset.train, dataset.held_out.sample(MAX_HELD_OUT, seed)
    try:
        dataset = datasets.load(calibration, image_size=size, max_bad_files=max_bad_files)
    except UserError:
        if not Path(calibration).is_dir():
            raise
        pictures = load_pictures(calibration, artifact.image_spec, 2 * samples, seed)
        half = max(len(pictures) // 2, min(len(pictures), 20))
        return pictures[:half], pictures[half:] if len(pictures) > half else pictures
    # Labels count only where they mean the model's classes; calibration does not need them.
    same = readable(artifact.class_names or ()) == readable(dataset.class_names)
    held_out = dataset.held_out.sample(MAX_HELD_OUT, seed)
    return dataset.train, held_out if same else load_pictures(held_out, artifact.image_spec, samples, seed)


@click.command("export")
@click.argument("model")
@click.option("--quantize", default="none,float16,dynamic,int8", show_default=True, help="Precisions, by commas.")
@click.option("--calibration", help="Pictures for int8: a folder or dataset; by default what the run was trained on.")
@click.option("--samples", type=click.IntRange(20), default=100, show_default=True, help="Calibration pictures.")
@click.option("--input-type", default="float32", show_default=True, help="float32, or uint8 for int8 files.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files; by default a new run folder.")
@click.option("--name", help="First part of the file names; by default that of the run.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--max-bad-files", type=int, default=10, show_default=True, help="Undecodable files that are tolerated.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--allow-degraded", is_flag=True, help="Keep files that disagree with the model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model,
    quantize,
    calibration,
    samples,
    input_type,
    out,
    name,
    seed,
    max_bad_files,
    overwrite,
    allow_degraded,
    as_json,
) -> None:
    """Write .tflite files of MODEL (.keras, run folder, or a name like lite0), each one run and compared with it."""
    console.prepare_tensorflow()
    from keras_effnet import artifacts
    from keras_effnet.errors import one_of
    from keras_effnet.export.bundle import HEADERS, write_bundle
    from keras_effnet.export.quantization import INPUT_TYPES, RECIPES
    from keras_effnet.runs import new_run

    precisions = [one_of("quantization", item.strip(), RECIPES) for item in quantize.split(",")]
    one_of("input type", input_type, INPUT_TYPES)
    artifact = artifacts.load(model)
    if artifact.model is None:
        raise UserError(f"{model} is exported already; give the .keras file or the run folder.")
    name = name or (Path(model).resolve().name if Path(model).is_dir() else artifact.path.stem)
    with console.status("Reading pictures") as spinner:
        calibrate_on, held_out = _sources(artifact, calibration, samples, seed, max_bad_files)
        folder = out or new_run("export", name)
        bundle = write_bundle(
            artifact.model,
            folder,
            precisions,
            held_out=held_out,
            calibration=calibrate_on,
            name=name,
            input_type=input_type,
            labels=artifact.class_names,
            image_spec=artifact.image_spec,
            samples=samples,
            seed=seed,
            overwrite=overwrite,
            allow_degraded=allow_degraded,
            announce=spinner.update,
        )
    if as_json:
        click.echo(bundle.to_json())
    else:
        console.table(HEADERS, [row.cells() for row in bundle.rows], title=f"{name}, verified by running each file")
        click.echo(bundle.recommendation)
        example = f"keras-effnet eval {folder}/{name}_{precisions[-1]}.tflite DATA"
        console.finish(f"{folder} (report.md, precisions.png)", example)
    bundle.raise_if_refused()
