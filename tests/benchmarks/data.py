"""How fast pictures come to the network, and what RandAugment costs, beside other loaders, as Markdown tables.

    python tests/benchmarks/data.py FOLDER [loaders | randaugment]

FOLDER as in `accuracy.py`: pictures and a `labels.csv`. Needs the `peers` extra: torch and grain.

`loaders`: training batches of 32 pictures of 224 pixels. Ours crops at random, resizes and mirrors; torch and grain do
the same with Pillow, in two processes and two threads; `image_dataset_from_directory` only decodes and resizes. All
loaders are warmed up by an epoch, which also fills the cache of ours, and then timed in turn, `ROUNDS` times. CPU time
includes the workers' and is what to compare on a busy machine.

`randaugment`: CPU time that two operations of magnitude 9 add to a picture of 224 pixels, ours and Keras', each over
the same pipeline without it, all timed in turn.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from PIL import Image

from keras_effnet import datasets
from keras_effnet.augment import Augmentation, augment_image
from keras_effnet.pipeline import image_pipeline
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.runs import cpu_name

SIZE, BATCH, WORKERS, ROUNDS = 224, 32, 2, 3
OURS = "ours, files"
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


class Pictures:
    """What torch and grain draw from: item -> picture and label."""

    def __init__(self, paths: list[str], labels: list[int]):
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        number = int(number)
        draws = np.random.default_rng(time.time_ns() + number).random(5)
        return prepare(self.paths[number], draws), self.labels[number]


def torch_loader(pictures: Pictures) -> Iterable:
    import torch

    return torch.utils.data.DataLoader(
        pictures, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )


def grain_loader(pictures: Pictures) -> Iterable:
    """Threads: Pillow lets go of the interpreter while it decodes, and processes would start anew each epoch."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain reads flags that only absl's own start-up parses
    reading = grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=4 * BATCH)
    data = grain.MapDataset.source(pictures).shuffle(seed=0).to_iter_dataset(reading)
    return data.batch(BATCH, drop_remainder=True)


# ------------------------------------------------------------------ loaders


def class_folders(folder: Path, root: Path) -> tuple[list[str], list[int]]:
    """Links each labelled picture of `folder` into a class folder below `root`."""
    with (folder / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    paths = []
    for row in rows:
        place = root / row["wnid"]
        place.mkdir(exist_ok=True)
        (place / row["file"]).symlink_to((folder / row["file"]).resolve())
        paths.append(str(place / row["file"]))
    return paths, [int(row["index"]) for row in rows]


def loaders(folder: Path, root: Path) -> dict[str, Callable[[], Iterable]]:
    """Name -> function that begins an epoch."""
    import keras

    paths, labels = class_folders(folder, root)
    split = datasets.Split(tuple(paths), np.array(labels, "int32"))
    spec = ImageSpec(SIZE)
    peers = Pictures(paths, labels)
    plain = keras.utils.image_dataset_from_directory(root, image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False)
    begins: dict[str, Iterable] = {
        OURS: image_pipeline(split, spec, BATCH, training=True, cache=False),
        "ours, cached": image_pipeline(split, spec, BATCH, training=True, cache=True),
        "keras, image_dataset_from_directory": plain,
        "torch, DataLoader": torch_loader(peers),
        "grain": grain_loader(peers),
    }
    return {name: data.__iter__ for name, data in begins.items()}


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


def epoch(begin: Callable[[], Iterable]) -> tuple[float, float]:
    """Pictures a second, and CPU milliseconds a picture."""
    cpu, started, count = cpu_seconds(), time.perf_counter(), 0
    for images, _ in begin():
        count += len(images)
    return count / (time.perf_counter() - started), (cpu_seconds() - cpu) / count * 1e3


def compare_loaders(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as root:
        begins = loaders(folder, Path(root))
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in begins}
        for turn in range(ROUNDS + 1):
            for name, begin in begins.items():
                result = epoch(begin)
                if turn:  # the first epoch starts workers, traces graphs and fills caches
                    measured[name].append(result)
        rates, costs = ({name: [pair[part] for pair in pairs] for name, pairs in measured.items()} for part in (0, 1))
        faster, cheaper = (ratios(values, OURS) for values in (rates, costs))
        print("| loader | images/s | ours / it | CPU ms an image | it / ours |\n|---|---|---|---|---|")
        for name in begins:
            rate, cost = median(rates[name]), median(costs[name])
            print(f"| {name} | {rate:.0f} | {faster[name]:.2f} | {cost:.2f} | {1 / cheaper[name]:.2f} |", flush=True)


def ratios(values: dict[str, list[float]], of: str) -> dict[str, float]:
    """Median over the rounds of `of`'s value over each one's."""
    return {
        name: median(own / other for own, other in zip(values[of], others, strict=True))
        for name, others in values.items()
    }


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
    print("| RandAugment | CPU ms that it adds to a picture |\n|---|---|")
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
