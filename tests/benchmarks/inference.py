"""Inference on a folder of images beside plain Keras, and `.tflite` files on all cores, as Markdown tables.

    python tests/benchmarks/inference.py FOLDER [--networks lite0 b0] [--rounds 3]

FOLDER as in `accuracy.py`: images and a `labels.csv`. Weights are random: they do not change the time.

The first table has the loops of `eval` and `predict`, from files to outputs, beside `model.predict` over
`image_dataset_from_directory`, which resizes whole images instead of cropping them; all take turns. The second has a
float32 `.tflite` file in one worker process and in one per core. The first run of each, which traces and starts
processes, is left out. CPU time counts all threads and processes and is what to compare on a busy machine; what several
processes gain is wall time, which an idle machine shows. Ratios are medians of the rounds' own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from data import BATCH, SIZE, class_folders, in_turn, ratio

from keras_effnet.datasets.splits import Split
from keras_effnet.export import export_tflite
from keras_effnet.export.isolation.parallel import ParallelModel
from keras_effnet.inference import artifacts
from keras_effnet.inference.image_files import image_batches
from keras_effnet.models import efficientnet
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.machine import cpu_name

KERAS, ALL, ONE = "model.predict", "one worker per core", "one worker"


@dataclass(frozen=True)
class Outputs:
    """Outputs of a folder, computed again in each iteration, in the form of a loader's batches."""

    compute: Callable[[], Iterable[Any]]

    def __iter__(self) -> Iterator[tuple[Any, None]]:
        return ((outputs, None) for outputs in self.compute())


def of_keras_file(path: Path, paths: list[str], labels: list[int], root: Path) -> dict[str, Iterable]:
    """The loops of both commands, and what a user of Keras writes."""
    import keras

    artifact = artifacts.load(path, batch_size=BATCH)
    model, spec, split = artifact.model, artifact.image_spec, Split(tuple(paths), np.array(labels, "int32"))
    plain = keras.utils.image_dataset_from_directory(
        root, image_size=(SIZE, SIZE), batch_size=BATCH, shuffle=False, verbose=False
    )
    ours = {
        "eval": lambda: (artifact.predict(images.numpy()) for images, _ in image_pipeline(split, spec, BATCH)),
        "predict": lambda: (artifact.predict(images) for _, images in image_batches(paths, spec, BATCH)),
        KERAS: lambda: [model.predict(plain, verbose=0)],
    }
    return {name: Outputs(compute) for name, compute in ours.items()}


def of_tflite_file(path: Path, paths: list[str]) -> dict[str, Iterable]:
    """The loop of `predict` with one worker process, and with one per core."""

    def outputs(file: ParallelModel) -> Outputs:
        return Outputs(lambda: (file.predict(images) for _, images in image_batches(paths, ImageSpec(SIZE), BATCH)))

    return {ALL: outputs(ParallelModel(path)), ONE: outputs(ParallelModel(path, 1))}


def show(network: str, works: dict[str, Iterable], peer: str, rounds: int) -> None:
    """Print a row for each that is compared with `peer`."""
    rates, costs = in_turn(works, rounds)
    for name in (each for each in works if each != peer):
        speed, cost = (f"{median(values[name]):.1f} / {median(values[peer]):.1f}" for values in (rates, costs))
        faster, cheaper = ratio(rates, name, peer), ratio(costs, peer, name)
        print(f"| {network} | {name} / {peer} | {cost} | {cheaper:.2f} | {speed} | {faster:.2f} |", flush=True)


def main() -> None:
    """Measure the Keras networks, then their `.tflite` files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", default=["lite0", "b0"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores; medians of {options.rounds} rounds, in turn.\n")
    print(
        "| network | ours / peer | CPU ms per image | peer / ours | images/s | ours / peer |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        paths, labels = class_folders(options.folder, root)
        for name in options.networks:
            path = Path(folder) / name
            model = getattr(efficientnet, f"EfficientNet{name.capitalize()}")(weights=None)
            model.save(path.with_suffix(".keras"))
            show(name, of_keras_file(path.with_suffix(".keras"), paths, labels, root), KERAS, options.rounds)
            export_tflite(model, path.with_suffix(".tflite"), "none")
            show(f"{name}.tflite", of_tflite_file(path.with_suffix(".tflite"), paths), ONE, options.rounds)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main()
