"""`keras-effnet quickstart`: train, export and verify on embedded data in one command."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from keras_effnet.cli import console
from keras_effnet.cli.parameter_types import Choice, Whole
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.export.choices import DEFAULT_QUANTIZATIONS, Quantization

_SHOWN = 24  # images in predictions.png
_COUNTED = 0.3  # score of the boxes drawn there


def _accuracy(evaluation: Any) -> dict[str, float]:
    return {"accuracy": evaluation.accuracy}


def _precision(evaluation: Any) -> dict[str, float]:
    return {"AP": evaluation.ap.ap, "AP50": evaluation.ap.ap50}


def _draw_classes(outputs: Any, images: Any, names: Sequence[str], detector: Any, path: Path) -> None:
    from keras_effnet.evaluation import plots

    titles = [f"{names[row.argmax()]}  {row.max():.0%}" for row in outputs]
    plots.image_grid(images, titles, path)


def _draw_boxes(outputs: Any, images: Any, names: Sequence[str], detector: Any, path: Path) -> None:
    from keras_effnet.detection.anchors import anchor_boxes
    from keras_effnet.evaluation.by_task import box_drawings
    from keras_effnet.evaluation.by_task.boxes import found_boxes

    found = found_boxes(outputs, anchor_boxes(detector), images.shape[1:3], score_threshold=_COUNTED)
    titles = [f"{len(each)} found" for each in found]
    box_drawings.box_grid(images, [box_drawings.detected_boxes(each, names) for each in found], titles, path, columns=6)


@dataclass(frozen=True)
class Course:
    """What the quickstart does for a task.

    Args:
        data: String, an embedded dataset.
        config: `TrainConfig`.
        quantizations: Names of precisions.
        images: String, what the images show.
        figures: Function from the metrics of the held-out images to those reported, by name.
        draw: Function of outputs, images, names, detector and a path that draws what was found.
        following: Options of the `train` command to continue with.
        note: String, on which data.
    """

    data: str
    config: TrainConfig
    quantizations: tuple[Quantization, ...]
    images: str
    figures: Callable[[Any], dict[str, float]]
    draw: Callable[[Any, Any, Sequence[str], Any, Path], None]
    following: tuple[object, ...]
    note: str


COURSES: dict[str, Course] = {
    # Lite0 at a third of its depth and width, at 32 pixels: 0.4 million parameters. The stem has stride 1 because
    # digits of 8x8 pixels have no detail to spare. Expected on two cores: 99% accuracy on unseen digits after 1 to 2
    # minutes.
    "classification": Course(
        "digits",
        TrainConfig(
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
        ),
        DEFAULT_QUANTIZATIONS,
        images="digits",
        figures=_accuracy,
        draw=_draw_classes,
        following=("--model", "b0", "--image-size", 64),
        note="your own images, one folder per class",
    ),
    # EfficientDet-Lite0's pyramid and heads, halved, on half of a narrow ResNet-18: from scratch it learns digits in
    # half of the time that Lite0's depthwise convolutions take on a CPU.
    "detection": Course(
        "digits-scenes",
        TrainConfig(
            model="det-lite0",
            backbone="resnet18",
            depth=0.5,
            width=0.25,
            bifpn_width=32,
            bifpn_cells=1,
            head_depth=2,
            image_size=96,
            epochs=12,
            ap_every=6,
            batch_size=16,
            learning_rate=4e-3,
            warmup_epochs=1.0,
            global_clip_norm=10.0,
            scale_low=0.85,
            scale_high=1.2,
        ),
        ("none", "int8"),
        images="scenes of digits",
        figures=_precision,
        draw=_draw_boxes,
        following=("--model", "det-lite0", "--recipe", "finetune"),
        note="your own images with boxes: COCO, Pascal VOC, YOLO or CSV",
    ),
}


@click.command("quickstart")
@click.option("--task", type=Choice(tuple(COURSES)), default="classification", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--epochs", type=Whole(1), help="Epochs of training; by default 20, with boxes 12.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(task, out, epochs, as_json) -> None:
    """Train a small EfficientNet on handwritten digits, export it at five precisions, run and compare each file.

    With --task detection a small EfficientDet finds the digits in scenes of several; its files are float32 and int8.
    """
    started = time.perf_counter()
    console.prepare_tensorflow()
    from keras_effnet import datasets
    from keras_effnet.architecture.detector_files import DETECTOR_JSON, load_detector
    from keras_effnet.export.bundle import write_bundle
    from keras_effnet.export.calibration import load_images
    from keras_effnet.pipeline.batches import image_pipeline
    from keras_effnet.system.run_folders import kept_if_used, new_run
    from keras_effnet.tasks import TASKS
    from keras_effnet.training.by_task.judging import judge
    from keras_effnet.training.checkpoints import LAST
    from keras_effnet.training.run import train_dataset

    course = COURSES[task]
    config = replace(course.config, epochs=epochs or course.config.epochs)
    dataset = datasets.load(course.data, seed=config.seed, image_size=config.image_spec.size)
    folder = new_run("quickstart", course.data, out)
    learning = TASKS[task].learning
    assert learning is not None  # of tasks that are trained
    with kept_if_used(folder, LAST), console.training_progress(config.epochs, learning.watched) as bars:
        result = train_dataset(dataset, config, folder, callbacks=[bars])
    if result is None:
        return  # process 0 reports
    test, model = dataset.held_out, result.model
    detector = load_detector(folder / DETECTOR_JSON) if config.detector else None
    batches = image_pipeline(replace(dataset, val=test), config.image_spec, config.batch_size, detector=detector)
    figures = course.figures(judge(model, batches, replace(dataset, val=test), detector).evaluation)
    images = load_images(test, config.image_spec, len(test))[:_SHOWN]
    outputs = model.predict(images, verbose=0)
    course.draw(outputs, images, dataset.class_names, detector, folder / "predictions.png")

    with console.status("Exporting") as spinner:
        bundle = write_bundle(
            model,
            folder / "export",
            course.quantizations,
            held_out=test,
            calibration=dataset.train,
            name=course.data,
            input_type="uint8",
            detector=detector,
            labels=dataset.class_names,
            image_spec=config.image_spec,
            announce=spinner.update,
        )
    seconds = time.perf_counter() - started
    if as_json:
        measured = {f"test_{name.lower()}": value for name, value in figures.items()}
        summary = {"run": str(folder)} | measured | {"seconds": seconds}
        console.emit_json(summary | {"export": json.loads(bundle.to_json())})
    else:
        _show(bundle, folder, course, figures, len(test), seconds)
    bundle.raise_if_refused()


def _show(bundle: Any, folder: Path, course: Course, figures: Mapping[str, float], images: int, seconds: float) -> None:
    from keras_effnet.export.report import cells, columns

    shown = ", ".join(f"{name} {value:.1%}" for name, value in figures.items())
    headers = columns(bundle.rows, short=True)
    title = f"{images} held-out {course.images}; Keras model: {shown}"
    console.table(headers, [cells(row, headers) for row in bundle.rows], title=title)
    click.echo(bundle.recommendation)
    click.echo(f"Total time: {seconds:.0f} seconds.")
    drawn = ", ".join(path.name for path in sorted(folder.glob("*.png")))
    console.finish(
        f"{folder} ({drawn}, export/report.html, export/report.md)",
        ("keras-effnet", "train", "FOLDER", *course.following),
        course.note,
    )
