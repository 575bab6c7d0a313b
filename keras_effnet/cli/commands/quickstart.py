"""`keras-effnet quickstart`: train, export and verify on embedded data in one command."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import Whole
from keras_effnet.config.train_config import TrainConfig

# Lite0 at a third of its depth and width, at 32 pixels: 0.4 million parameters. The stem has stride 1 because digits of
# 8x8 pixels have no detail to spare. Expected on two cores: 99% accuracy on unseen digits after 1 to 2 minutes.
CONFIG = TrainConfig(
    model="lite0",
    depth=0.35,
    width=0.35,
    image_size=32,
    stem_stride=1,
    epochs=20,
    batch_size=32,
    learning_rate=3e-3,
    crop_scale=0.7,
    dropout_rate=0.1,
    drop_connect_rate=0.0,
)


@click.command("quickstart")
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--epochs", type=Whole(1), default=CONFIG.epochs, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(out, epochs, as_json) -> None:
    """Train a small EfficientNet on handwritten digits, export it at five precisions, run and compare each file."""
    started = time.perf_counter()
    console.prepare_tensorflow()
    from dataclasses import replace

    from keras_effnet import datasets
    from keras_effnet.evaluation import plots
    from keras_effnet.evaluation.metrics import evaluate
    from keras_effnet.export.bundle import write_bundle
    from keras_effnet.export.calibration import load_images
    from keras_effnet.system.run_folders import kept_if_used, new_run
    from keras_effnet.training.checkpoints import LAST
    from keras_effnet.training.run import train_dataset

    config = replace(CONFIG, epochs=epochs)
    dataset = datasets.load("digits", seed=config.seed)
    folder = new_run("quickstart", "digits", out)
    with kept_if_used(folder, LAST), console.training_progress(config.epochs) as bars:
        result = train_dataset(dataset, config, folder, callbacks=[bars])
    if result is None:
        return  # process 0 reports
    test = dataset.held_out

    images = load_images(test, config.image_spec, len(test))
    probabilities = result.model.predict(images, verbose=0)
    accuracy = evaluate(probabilities, test.labels).accuracy
    titles = [f"{dataset.class_names[row.argmax()]}  {row.max():.0%}" for row in probabilities[:24]]
    plots.image_grid(images[:24], titles, folder / "predictions.png")

    with console.status("Exporting") as spinner:
        bundle = write_bundle(
            result.model,
            folder / "export",
            held_out=test,
            calibration=dataset.train,
            name="digits",
            input_type="uint8",
            labels=dataset.class_names,
            image_spec=config.image_spec,
            announce=spinner.update,
        )
    seconds = time.perf_counter() - started
    if as_json:
        summary = {"run": str(folder), "test_accuracy": accuracy, "seconds": seconds}
        console.emit_json(summary | {"export": json.loads(bundle.to_json())})
    else:
        _show(bundle, folder, accuracy, len(test), seconds)
    bundle.raise_if_refused()


def _show(bundle, folder: Path, accuracy: float, images: int, seconds: float) -> None:
    from keras_effnet.export.report import cells, columns

    title = f"{images} held-out digits; Keras model {accuracy:.1%}"
    headers = columns(bundle.rows, short=True)
    console.table(headers, [cells(row, headers) for row in bundle.rows], title=title)
    click.echo(bundle.recommendation)
    click.echo(f"Total time: {seconds:.0f} seconds.")
    console.finish(
        f"{folder} (curves.png, confusion.png, predictions.png, export/report.html, export/report.md)",
        ("keras-effnet", "train", "FOLDER", "--model", "b0", "--image-size", 64),
        "your own images, one folder per class",
    )
