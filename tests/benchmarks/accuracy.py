"""Top-1 and top-5 accuracy of published networks on ImageNet images, as a Markdown table.

    python tests/benchmarks/accuracy.py FOLDER [NAME ...]

FOLDER holds images and a `labels.csv` with columns `index`, `wnid`, `name` and `file`; `file` is empty for a class
without an image. A sample of one image a class is easier than ImageNet's validation set, on which the published
figures were measured (Lite0 75.1%, Lite1 76.7%, Lite2 77.6%): its figures serve to compare networks and ways of
resizing with one another, and nothing else.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_effnet.datasets.splits import Split
from keras_effnet.evaluation.metrics import Evaluation, evaluate
from keras_effnet.inference import artifacts
from keras_effnet.inference.artifacts import Artifact
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.preprocessing import INTERPOLATIONS

NAMES = ("lite0", "lite1", "lite2")


def labelled_images(folder: Path) -> Split:
    """The images that `labels.csv` names."""
    with (folder / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    paths = tuple(str(folder / row["file"]) for row in rows)
    return Split(paths, np.array([int(row["index"]) for row in rows], "int32"))


def measure(artifact: Artifact, images: Split, interpolation: str) -> Evaluation:
    """Accuracy with the network's own crop, resized in the way that `interpolation` says."""
    batches = image_pipeline(images, replace(artifact.image_spec, interpolation=interpolation), 50)
    return evaluate(np.concatenate([artifact.predict(images.numpy()) for images, _ in batches]), images.labels)


def main(folder: str, *names: str) -> None:
    images = labelled_images(Path(folder))
    print(f"{len(images)} images, central crop of size / (size + 32). Easier than ImageNet's validation set.\n")
    print("| network | size | interpolation | top-1 | top-5 |")
    print("|---|---|---|---|---|")
    for name in names or NAMES:
        artifact = artifacts.load(name)
        for interpolation in reversed(INTERPOLATIONS):
            result = measure(artifact, images, interpolation)
            size, top1, top5 = artifact.image_spec.size, f"{result.accuracy:.1%}", f"{result.top5:.1%}"
            print(f"| {name} | {size} | {interpolation} | {top1} | {top5} |", flush=True)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main(*sys.argv[1:])
