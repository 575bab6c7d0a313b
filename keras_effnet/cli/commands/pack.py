"""`keras-effnet pack`: write a dataset as TFRecord shards, optionally downscaled."""

from __future__ import annotations

from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import task_option, tolerant
from keras_effnet.cli.parameter_types import IMAGE_SIZE, SEED, WHOLE
from keras_effnet.tasks import TASKS


@click.command("pack")
@click.argument("data")
@click.argument("out", type=click.Path(path_type=Path))
@task_option
@click.option("--size", type=IMAGE_SIZE, help="Largest training size; shorter sides are reduced to 1.15 times that.")
@click.option("--shards", type=WHOLE, help="Number of training shards; by default about 100 MB each.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the record order.")
@tolerant
@click.option("--data-dir", help="Data folder of TensorFlow Datasets.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier pack in OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    data, out, task, size, shards, seed, max_bad_files, skip_empty_classes, data_dir, overwrite, as_json
) -> None:
    """Write DATA to the folder OUT as TFRecord shards, which are faster to read in training.

    DATA is any source that `train` accepts: a folder, a CSV list, images with masks or boxes, TFRecords,
    tfds:NAME or digits.
    Images keep their original bytes unless --size makes them smaller.
    """
    console.prepare_tensorflow()
    from keras_effnet.datasets.packing import pack

    with console.hushed():
        packed = pack(
            data,
            out,
            task=task,
            size=size,
            shards=shards,
            seed=seed,
            max_bad_files=max_bad_files,
            skip_empty_classes=skip_empty_classes,
            overwrite=overwrite,
            data_dir=data_dir,
            progress=console.track,
        )
    if as_json:
        named = {"skipped": [item.path for item in packed.skipped], "left_out": [item.path for item in packed.left_out]}
        return console.emit_json(vars(packed) | named)
    left_out = f", {len(packed.skipped)} skipped (listed in index.json)" if packed.skipped else ""
    learning = TASKS[packed.task].learning
    assert learning  # what data teach
    one, several = learning.named
    names = f"{packed.classes} {one if packed.classes == 1 else several}"
    click.echo(f"{packed.images:,} images of {names}, {packed.shrunk:,} downscaled{left_out}.")
    if packed.changes:
        click.echo(f"The data have changed since the pack that was replaced: {packed.changes}.")
    at = ("--image-size", size) if size else ()
    plural = "shard" if packed.shards == 1 else "shards"
    console.finish(
        f"{out} ({packed.shards} {plural}, {packed.bytes / 1e6:,.1f} MB)",
        ("keras-effnet", "train", out, *at),
    )
