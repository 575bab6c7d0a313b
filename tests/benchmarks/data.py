"""Throughput of input pipelines and of RandAugment beside other loaders, as Markdown tables.

    python tests/benchmarks/data.py FOLDER [loaders | large | randaugment]

FOLDER as in `accuracy.py`: images and a `labels.csv`. Needs the `peers` extra: torch and grain.

`loaders`: training batches of 32 images of 224 pixels. Ours crops at random, resizes and mirrors; torch and grain do
the same with Pillow, in two processes and two threads; `image_dataset_from_directory` only decodes and resizes. Each
runs through `EPOCHS` epochs at a time, in the way that its users train: ours and grain as one stream, torch with
workers that outlive an epoch. A first such run starts workers and fills the cache of ours; `ROUNDS` more are timed, in
turn. CPU time includes the workers' and is what to compare on a busy machine.

`large`: the same without a cache on `LARGE` photos of 12 megapixels: images of FOLDER enlarged, with finer texture and
sensor noise added, in a temporary folder. A row shows torch with Pillow's `draft`, which decodes at a smaller scale too
but has to be called.

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
LARGE, LONG, SHORT, LARGE_EPOCHS, LARGE_ROUNDS = 32, 4000, 3000, 2, 5
CACHED, FILES = "ours, cached", "ours, files"
SCALE, RATIO = (0.35, 1.0), (3 / 4, 4 / 3)


# ------------------------------------------------------------------ the same work with Pillow, for torch and grain


def prepare(path: str, draws: np.ndarray, draft: bool = False) -> np.ndarray:
    """Random-resized-crop and flip; `draft` lets libjpeg decode at a smaller scale that leaves twice the size."""
    image = Image.open(path)
    width, height = image.size
    area = width * height * (SCALE[0] + draws[0] * (SCALE[1] - SCALE[0]))
    ratio = np.exp(np.log(RATIO[0]) + draws[1] * np.log(RATIO[1] / RATIO[0]))
    across, down = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    left, top = draws[2] * (width - across), draws[3] * (height - down)
    box = (left, top, left + across, top + down)
    if draft:
        share = 2 * SIZE / min(across, down)
        image.draft("RGB", (int(width * share), int(height * share)))
        box = tuple(edge * image.width / width for edge in box)
    image = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    if draws[4] < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image, "float32")


class Images:
    """What torch and grain draw from: item -> image and label."""

    def __init__(self, paths: list[str], labels: list[int], draft: bool = False):
        self.paths, self.labels, self.draft = paths, labels, draft

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        number = int(number)
        draws = np.random.default_rng(time.time_ns() + number).random(5)
        return prepare(self.paths[number], draws, self.draft), self.labels[number]


class Again:
    """Several epochs of a loader that begins each by itself."""

    def __init__(self, loader: Iterable, epochs: int):
        self.loader, self.epochs = loader, epochs

    def __iter__(self) -> Iterator:
        return chain.from_iterable(repeat(self.loader, self.epochs))


def torch_loader(images: Images) -> Iterable:
    import torch

    return torch.utils.data.DataLoader(
        images, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )


def grain_loader(images: Images, epochs: int) -> Iterable:
    """Threads: Pillow lets go of the interpreter while it decodes, and processes would start anew each epoch."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain reads flags that only absl's own start-up parses
    reading = grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=4 * BATCH)
    data = grain.MapDataset.source(images).shuffle(seed=0).repeat(epochs).to_iter_dataset(reading)
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


def large_folders(folder: Path, root: Path) -> tuple[list[str], list[int]]:
    """Writes `LARGE` photos of 12 megapixels into two class folders below `root`."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (LONG + 256, LONG + 256)).astype("float32")
    paths = []
    for number, source in enumerate(sorted(folder.glob("*.JPEG"))[:LARGE]):
        with Image.open(source) as opened:
            image = opened.convert("RGB")
        width, height = (LONG, SHORT) if image.width >= image.height else (SHORT, LONG)
        grey = np.asarray(image.convert("L"), "float32")
        texture = grey - np.asarray(image.convert("L").reduce(4).resize(image.size), "float32")
        tiled = np.tile(texture, (height // image.height + 1, width // image.width + 1))[:height, :width]
        top, left = rng.integers(256, size=2)
        fine = tiled / 2 + noise[top : top + height, left : left + width]
        pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)) + fine[..., None]
        path = root / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(path, quality=92)
        paths.append(str(path))
    return paths, [number % 2 for number in range(len(paths))]


def loaders(paths: list[str], labels: list[int], root: Path, epochs: int) -> dict[str, Iterable]:
    """Name -> the batches of several epochs."""
    import keras

    split = datasets.Split(tuple(paths), np.array(labels, "int32"))
    spec = ImageSpec(SIZE)
    peers = Images(paths, labels)
    plain = keras.utils.image_dataset_from_directory(root, image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False)
    ours = partial(image_pipeline, split, spec, BATCH, training=True, epochs=(0, epochs))
    return {
        FILES: ours(cache=False),
        CACHED: ours(cache=True),
        "keras, image_dataset_from_directory": plain.repeat(epochs),
        "torch, DataLoader": Again(torch_loader(peers), epochs),
        "grain": grain_loader(peers, epochs),
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
        data = loaders(*class_folders(folder, Path(root)), Path(root), EPOCHS)
        rates, costs = in_turn(data, ROUNDS)
    print("| loader | images/s | cached / it | files / it | CPU ms an image | it / cached | it / files |")
    print("|---|---|---|---|---|---|---|")
    for name in data:
        faster, cheaper = ([ratio(values, ours, name) for ours in (CACHED, FILES)] for values in (rates, costs))
        cells = [f"{median(rates[name]):.0f}", *map("{:.2f}".format, faster)]
        cells += [f"{median(costs[name]):.2f}", *(f"{1 / share:.2f}" for share in cheaper)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def in_turn(data: dict[str, Iterable], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Images a second and CPU milliseconds an image of each loader, in every round."""
    rates: dict[str, list[float]] = {name: [] for name in data}
    costs: dict[str, list[float]] = {name: [] for name in data}
    for turn in range(rounds + 1):
        for name, batches in data.items():
            rate, cost = timed(batches)
            if turn:  # the first starts workers, traces graphs and fills caches
                rates[name].append(rate)
                costs[name].append(cost)
    return rates, costs


def compare_large(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as root:
        paths, labels = large_folders(folder, Path(root))
        data = loaders(paths, labels, Path(root), LARGE_EPOCHS)
        del data[CACHED]
        data["torch, DataLoader, draft"] = Again(torch_loader(Images(paths, labels, draft=True)), LARGE_EPOCHS)
        rates, costs = in_turn(data, LARGE_ROUNDS)
    print("| loader, 12 megapixels | images/s | files / it | CPU ms an image | it / files |")
    print("|---|---|---|---|---|")
    for name in data:
        faster, cheaper = (ratio(values, FILES, name) for values in (rates, costs))
        row = (f"{median(rates[name]):.1f}", f"{faster:.2f}", f"{median(costs[name]):.1f}", f"{1 / cheaper:.2f}")
        print(f"| {name} | {' | '.join(row)} |", flush=True)


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


COMPARISONS = {"loaders": compare_loaders, "large": compare_large, "randaugment": compare_randaugment}


def main(folder: str, *names: str) -> None:
    print(f"{cpu_name()}, {os.cpu_count()} cores; medians of {ROUNDS}, timed in turn.\n")
    for name in names or COMPARISONS:
        COMPARISONS[name](Path(folder))
        print()


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main(*sys.argv[1:])
