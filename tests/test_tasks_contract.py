"""Tasks from files on disk to a proven file: train, eval, predict, export, verify, by the command line.

The images are handwritten digits: which digit, which of two, two attributes, the ink as a number, and its pixels; and,
as several labels, photographs of tiny-imagenet-10, where these are present. The short contract runs in CI.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_network import TINY

from keras_effnet import datasets
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.export import verify
from keras_effnet.inference import artifacts

COUNT = 160
# The figure of `eval`, and the largest difference between the model's and that of its float and its int8 file.
FIGURES = {
    "classification": ("accuracy", 0.0, 0.1),
    "binary": ("auc", 1e-3, 0.05),
    "multilabel": ("mean_ap", 1e-3, 0.05),
    "regression": ("r2", 1e-3, 0.1),
    "segmentation": ("mean_iou", 1e-3, 0.03),
}
INK = 100  # of 255, from where a pixel belongs to the digit


def written(digits: ImageDataset, task: str, folder: Path) -> Path:
    """Write digits as files, with the labels of a task."""
    pixels, labels = digits.train.pixels, digits.train.labels
    chosen = np.flatnonzero(labels < 2) if task == "binary" else np.arange(len(labels))
    lines = ["path,ink" if task == "regression" else "path,label"]
    for number in chosen[:COUNT].tolist():
        image, digit = pixels[number], int(labels[number])
        named = {"classification": f"{digit}/", "binary": ("one/", "zero/")[digit == 0]}
        path = folder / f"{named.get(task, 'images/')}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        attributes = [name for name, has in (("even", digit % 2 == 0), ("round", digit in (0, 6, 8, 9))) if has]
        told = f"{image.mean() / 255:.4f}" if task == "regression" else "|".join(attributes)
        lines.append(f"{path.relative_to(folder)},{told}")
        if task == "segmentation":
            mask = folder / "masks" / path.name
            mask.parent.mkdir(exist_ok=True)
            Image.fromarray((image.mean(axis=-1) > INK).astype("uint8")).save(mask)
    if task in ("multilabel", "regression"):
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    if task == "segmentation":
        (folder / "classes.txt").write_text("ground\ndigit\n")
    return folder


# Labels of the classes of tiny-imagenet-10: a goldfish is an animal, a school bus is made by people, a pizza is food.
ATTRIBUTES = {
    "animal": ("n01443537", "n02056570", "n02099601", "n02279972"),
    "made": ("n02814860", "n04146614", "n04311004", "n04398044", "n07873807"),
    "food": ("n07753592", "n07873807"),
}
EACH = 12  # photographs of each class


def photographs(root: Path, folder: Path) -> Path:
    """Write a list of photographs with the labels of their classes."""
    lines = ["path,split,label"]
    for split, count in (("train", EACH), ("val", EACH // 3)):
        for place in sorted((root / "tiny-imagenet-10" / split).iterdir()):
            labels = "|".join(name for name, classes in ATTRIBUTES.items() if place.name in classes)
            lines += [f"{path},{split},{labels}" for path in sorted(place.rglob("*.JPEG"))[:count]]
    folder.mkdir()
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "segmentation"])  # each takes half a minute
def test_a_task_has_its_figures_from_files_to_a_proven_file(cli, digits, tmp_path, task, request):
    """The short contract: one training of a few steps, one export, figures of the network and of its int8 file."""
    photos = task == "multilabel"
    data = (
        photographs(request.getfixturevalue("images_root"), tmp_path / "data")
        if photos
        else written(digits, task, tmp_path / "data")
    )
    figure, _, near = FIGURES[task]

    def done(*args) -> dict:
        shown = cli(*args, "--json")
        assert shown.status == 0, shown.err
        return json.loads(shown.out)

    options = ("--model", TINY, "--image-size", 32, "--epochs", 4, "--batch-size", 16, "--optimizer", "sgd")
    place = ("--warmup-epochs", 0, "--out", "runs", "--name", "run")
    assert done("train", data, *options, *place)["task"] == task  # which follows from the data
    int8 = ("--quantize", "int8", "--method", "minmax", "--out", "files", "--name", "net")
    (row,) = done("export", "runs/train/run", *int8)["rows"]
    assert row["report"]["task"] == task and row["refused"] == ""
    ours, theirs = (done("eval", *model) for model in (("runs/train/run",), ("files/net_int8.tflite", data)))
    assert ours["task"] == theirs["task"] == task
    assert theirs[figure] == pytest.approx(ours[figure], abs=near)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("task", FIGURES)
def test_a_task_from_files_to_a_proven_file(cli, digits, tmp_path, task):
    data = written(digits, task, tmp_path / "data")

    def done(*args) -> dict:
        shown = cli(*args)
        assert shown.status == 0, shown.err
        return json.loads(shown.out) if "--json" in args else {}

    options = ("--model", TINY, "--image-size", 32, "--epochs", 6, "--batch-size", 16, "--learning-rate", 0.01)
    done("train", data, "--task", task, *options, "--warmup-epochs", 0, "--out", "runs", "--name", "run")
    run = Path("runs/train/run")
    figure, exact, near = FIGURES[task]
    ours = done("eval", run, "--json")
    assert ours["task"] == task and np.isfinite(ours[figure])

    exported = done("export", run, "--quantize", "none,int8", "--out", "files", "--name", "net", "--json")
    assert [row["report"]["task"] for row in exported["rows"]] == [task, task]
    for name, tolerance in (("none", exact), ("int8", near)):
        theirs = done("eval", f"files/net_{name}.tflite", data, "--json")
        assert theirs[figure] == pytest.approx(ours[figure], abs=tolerance), name

    artifact = artifacts.load(run)
    held_out = datasets.load(data, task=task).held_out
    report = verify("files/net_int8.tflite", artifact.model, held_out, image_spec=artifact.image_spec)
    assert report.task == task and report.samples == len(held_out)
    assert report.score == pytest.approx(exported["rows"][1]["report"]["score"], abs=0.1)

    image = held_out.images[0]
    answers = [done("predict", image, "--model", model, "--json")[image] for model in (run, "files/net_none.tflite")]
    assert len(answers) == 2 and type(answers[0]) is type(answers[1])
