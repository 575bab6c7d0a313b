"""Throughput of input pipelines and of RandAugment beside other loaders, as Markdown tables.

    python tests/benchmarks/data.py FOLDER [loaders | randaugment]

FOLDER as in `accuracy.py`: images and a `labels.csv`. Needs the `peers` extra: torch and grain.

`loaders`: training batches of 32 images of 224 pixels. Ours crops at random, resizes and mirrors; torch and grain do
the same with Pillow, in two processes and two threads; `image_dataset_from_directory` only decodes and resizes. Each
runs through `EPOCHS` epochs at a time, in the way that its users train: ours and grain as one stream, torch with
workers that outlive an epoch. A first such run starts workers and fills the cache of ours; `ROUNDS` more are timed, in
turn. CPU time includes the workers' and is what to compare on a busy machine.

`randaugment`: CPU time that two operations of magnitude 9 add to an image of 224 pixels, ours and Keras', each over
the same pipeline without it, all timed in turn.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from statistics import median

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from PIL import Image

from keras_effnet import datasets
from keras_effnet.pipeline.augmentation import Augmentation, augment_image
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.machine import cpu_name

SIZE, BATCH, WORKERS, EPOCHS, ROUNDS = 224, 32, 2, 5, 7
CACHED, FILES = "ours, cached", "ours, files"
SCALE, RATIO = (0.35, 1.0), (3 / 4, 4 / 3)


# ------------------------------------------------------------------ the same work with Pillow, for torch and grain


def prepare(path: str, draws: np.ndarray) -> np.ndarray:
    """Random-resized-crop and flip. The reader is told the size, so that it may decode at a smaller scale if it can."""
    image = Image.open(path)
    width, height = image.size
    area = width * height * (SCALE[0] + draws[0] * (SCALE[1] - SCALE[0]))
    ratio = np.exp(np.log(RATIO[0]) + draws[1] * np.log(RATIO[1] / RATIO[0]))
    across, down = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    left, top = draws[2] * (width - across), draws[3] * (height - down)
    box = (left, top, left + across, top + down)
    image = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    if draws[4] < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image, "float32")


class Images:
    """What torch and grain draw from: item -> image and label."""

    def __init__(self, paths: list[str], labels: list[int]):
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        number = int(number)
        draws = np.random.default_rng(time.time_ns() + number).random(5)
        return prepare(self.paths[number], draws), self.labels[number]


class Again:
    """`EPOCHS` epochs of a loader that begins each by itself."""

    def __init__(self, loader: Iterable):
        self.loader = loader

    def __iter__(self) -> Iterator:
        return chain.from_iterable(repeat(self.loader, EPOCHS))


def torch_loader(images: Images) -> Iterable:
    import torch

    return torch.utils.data.DataLoader(
        images, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )


def grain_loader(images: Images) -> Iterable:
    """Threads: Pillow lets go of the interpreter while it decodes, and processes would start anew each epoch."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain reads flags that only absl's own start-up parses
    reading = grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=4 * BATCH)
    data = grain.MapDataset.source(images).shuffle(seed=0).repeat(EPOCHS).to_iter_dataset(reading)
    return data.batch(BATCH, drop_remainder=True)


# ------------------------------------------------------------------ loaders


def class_folders(folder: Path, root: Path) -> tuple[list[str], list[int]]:
    """Links each labelled image of `folder` into a class folder below `root`."""
    with (folder / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    paths = []
    for row in rows:
        place = root / row["wnid"]
        place.mkdir(exist_ok=True)
        (place / row["file"]).symlink_to((folder / row["file"]).resolve())
        paths.append(str(place / row["file"]))
    return paths, [int(row["index"]) for row in rows]


def loaders(folder: Path, root: Path) -> dict[str, Iterable]:
    """Name -> the batches of `EPOCHS` epochs."""
    import keras

    paths, labels = class_folders(folder, root)
    split = datasets.Split(tuple(paths), np.array(labels, "int32"))
    spec = ImageSpec(SIZE)
    peers = Images(paths, labels)
    plain = keras.utils.image_dataset_from_directory(root, image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False)
    ours = partial(image_pipeline, split, spec, BATCH, training=True, epochs=(0, EPOCHS))
    return {
        FILES: ours(cache=False),
        CACHED: ours(cache=True),
        "keras, image_dataset_from_directory": plain.repeat(EPOCHS),
        "torch, DataLoader": Again(torch_loader(peers)),
        "grain": grain_loader(peers),
    }


def cpu_seconds() -> float:
    """CPU time of this process and of its living children, as Linux counts it: the workers of torch and grain."""
    ticks = os.sysconf("SC_CLK_TCK")
    total, pending = 0.0, [os.getpid()]
    while pending:
        process = Path("/proc") / str(pending.pop())
        # After the name in brackets, which may hold anything, fields 11 and 12 are user and system time.
        fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
        for task in process.glob("task/*/children"):
            pending += map(int, task.read_text().split())
    return total


def timed(batches: Iterable) -> tuple[float, float]:
    """Images a second, and CPU milliseconds an image."""
    cpu, started, count = cpu_seconds(), time.perf_counter(), 0
    for images, _ in batches:
        count += len(images)
    return count / (time.perf_counter() - started), (cpu_seconds() - cpu) / count * 1e3


def compare_loaders(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as root:
        data = loaders(folder, Path(root))
        rates, costs = ({name: [] for name in data} for _ in range(2))
        for turn in range(ROUNDS + 1):
            for name, batches in data.items():
                rate, cost = timed(batches)
                if turn:  # the first starts workers, traces graphs and fills caches
                    rates[name].append(rate)
                    costs[name].append(cost)
    print("| loader | images/s | cached / it | files / it | CPU ms an image | it / cached | it / files |")
    print("|---|---|---|---|---|---|---|")
    for name in data:
        faster, cheaper = ([ratio(values, ours, name) for ours in (CACHED, FILES)] for values in (rates, costs))
        cells = [f"{median(rates[name]):.0f}", *map("{:.2f}".format, faster)]
        cells += [f"{median(costs[name]):.2f}", *(f"{1 / share:.2f}" for share in cheaper)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def ratio(values: dict[str, list[float]], of: str, to: str) -> float:
    """Median over the rounds of one's value over the other's."""
    return median(one / other for one, other in zip(values[of], values[to], strict=True))


# ------------------------------------------------------------------ RandAugment


def compare_randaugment(folder: Path, count: int = 96) -> None:
    import keras

    paths = sorted(str(path) for path in folder.glob("*.JPEG"))[:count]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE))) for path in paths])
    theirs = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.9)
    plain, strong = Augmentation(flip=False), Augmentation(flip=False, policy="randaugment")
    works = {
        "nothing": lambda image, draw: augment_image(image, draw, plain),
        "ours": lambda image, draw: augment_image(image, draw, strong),
        "keras": lambda image, draw: theirs(tf.cast(image, tf.float32)),
    }
    numbers = tf.data.Dataset.random(seed=0, rerandomize_each_iteration=True).batch(2)
    data = tf.data.Dataset.zip((tf.data.Dataset.from_tensor_slices(pixels), numbers))
    pipelines = {name: data.map(work, num_parallel_calls=WORKERS).batch(BATCH) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name, pipeline in pipelines.items():
            started = time.process_time()
            for _ in pipeline:
                pass
            if turn:
                times[name].append((time.process_time() - started) / len(pixels) * 1e3)
    print("| RandAugment | CPU ms that it adds to an image |\n|---|---|")
    for name in ("ours", "keras"):
        added = [all_ - base for all_, base in zip(times[name], times["nothing"], strict=True)]
        print(f"| {name} | {median(added):.2f} |")


COMPARISONS = {"loaders": compare_loaders, "randaugment": compare_randaugment}


def main(folder: str, *names: str) -> None:
    print(f"{cpu_name()}, {os.cpu_count()} cores; medians of {ROUNDS}, timed in turn.\n")
    for name in names or COMPARISONS:
        COMPARISONS[name](Path(folder))
        print()


if __name__ == "__main__":
    main(*sys.argv[1:])
