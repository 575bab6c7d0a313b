"""How time and memory grow with images, classes, processes and the network, with fitted exponents.

    python tests/benchmarks/growth.py [AXIS ...] [--repeats N] [--json FILE]

Each size runs in a process of its own, which prints CPU seconds and peak memory above what the process held before.
An exponent is the slope of log(cost) over log(size) among the sizes that cost over twice as much as the smallest,
or the last two; a cost that never doubles does not grow. Up to `LINEAR` counts as linear; anything above needs a
reason in `GROWTHS`, or the script ends with exit code 1. Listings are simulated: `os.scandir` returns names that are
on no disk. The size of a network is the number of its layers with weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from keras_effnet.system.machine import cpu_name, peak_resident_bytes, resident_bytes

LINEAR = 1.15  # noise, and the logarithm of sorting
SECONDS, MEGABYTES = 0.05, 8.0  # below these a cost is noise
FOLDER_FILES = 1000
IMAGES = 100_000


# ------------------------------------------------------------------ what is measured; each returns the work to do


class Entry:
    """A file or folder of a simulated disk, as `os.scandir` yields it."""

    def __init__(self, name: str, folder: bool):
        self.name, self.folder = name, folder

    def is_file(self) -> bool:
        return not self.folder

    def is_dir(self) -> bool:
        return self.folder

    def is_symlink(self) -> bool:
        return False


@contextmanager
def simulated_disk(images: int) -> Iterator[str]:
    """A folder of class folders of `FOLDER_FILES` images each."""
    root, scan = "/simulated", os.scandir

    @contextmanager
    def scandir(path: str) -> Iterator[Iterator[Entry]]:
        if not str(path).startswith(root):
            with scan(path) as entries:
                yield entries
        elif str(path) == root:
            yield (Entry(f"class{number:05d}", True) for number in range(-(-images // FOLDER_FILES)))
        else:
            yield (Entry(f"image{number:07d}.jpg", False) for number in range(min(images, FOLDER_FILES)))

    with patch("os.scandir", scandir):
        yield root


def listing(images: int) -> Callable[[], object]:
    from keras_effnet.datasets.listing.images import class_folders

    def work() -> None:
        with simulated_disk(images) as root:
            found = class_folders(root)
        assert sum(map(len, found.images.values())) >= images

    return work


def labels_of(images: int, classes: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(images) % classes).astype("int32")


def splitting(images: int, classes: int = 1000) -> Callable[[], object]:
    from keras_effnet.datasets.stratification import stratified_split

    labels = labels_of(images, min(classes, images))
    return lambda: stratified_split(labels, (0.8, 0.2), seed=0)


def first_batch(images: int) -> Callable[[], object]:
    from PIL import Image

    from keras_effnet.datasets import Split
    from keras_effnet.pipeline import image_pipeline
    from keras_effnet.preprocessing import ImageSpec

    path = Path(tempfile.mkdtemp()) / "image.png"
    Image.fromarray(np.zeros((32, 32, 3), "uint8")).save(path)
    split = Split((str(path),) * images, labels_of(images, 1000))
    return lambda: next(iter(image_pipeline(split, ImageSpec(32), 32, training=True, cache=False)))


def splitting_classes(classes: int) -> Callable[[], object]:
    return splitting(IMAGES, classes)


def evaluating(classes: int) -> Callable[[], object]:
    from keras_effnet.evaluation.metrics import collect_outcomes, compute_metrics, most_confused

    rng = np.random.default_rng(0)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in range(20):
            yield rng.random((64, classes), "float32"), rng.integers(0, classes, 64)

    return lambda: most_confused(compute_metrics(collect_outcomes(batches())).confusion, 10)


def classifier(classes: int) -> Callable[[], object]:
    from keras_effnet import EfficientNet

    EfficientNet(phi=-3, classes=10)
    return lambda: EfficientNet(phi=-3, classes=classes)


def processes(count: int) -> Callable[[], float]:
    """Processes that build a network; their peaks are added, with the libraries that they share."""
    program = "import keras_effnet; from keras_effnet.system.machine import peak_resident_bytes as peak; "
    program += "keras_effnet.EfficientNet(phi=-3, classes=10); print(peak())"
    command, streams = [sys.executable, "-c", program], {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}

    def work() -> float:
        started = [subprocess.Popen(command, text=True, **streams) for _ in range(count)]
        return sum(int(each.communicate()[0].splitlines()[-1]) for each in started)

    return work


def counting(phi: int) -> Callable[[], object]:
    from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
    from keras_effnet.complexity import count

    spec = architecture_spec(EFFICIENTNET_B0, phi=phi)
    return lambda: [count(spec) for _ in range(100)]


def building(phi: int) -> Callable[[], object]:
    from keras_effnet import EfficientNet

    EfficientNet(phi=-3)
    return lambda: EfficientNet(phi=phi)


def weighted_layers(phi: int) -> int:
    from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
    from keras_effnet.architecture.specs import expand

    return 3 + sum(len(block.weighted) for block in expand(architecture_spec(EFFICIENTNET_B0, phi=phi)).blocks)


def parameters(phi: int) -> int:
    from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
    from keras_effnet.complexity import count

    return count(architecture_spec(EFFICIENTNET_B0, phi=phi)).total_params


# ------------------------------------------------------------------ table


@dataclass(frozen=True)
class Growth:
    """A cost and the sizes to measure it at.

    Args:
        axis: String, what grows.
        work: Function from a size to the work.
        sizes: Tuple of ints.
        scale: Function from a size to what time is compared with.
        memory_scale: Function from a size to what memory is compared with.
        reason: String, why a cost may grow faster than linearly; empty if none may.
    """

    axis: str
    work: Callable[[int], Callable[[], object]]
    sizes: tuple[int, ...]
    scale: Callable[[int], int] = int
    memory_scale: Callable[[int], int] = int
    reason: str = ""

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.work.__name__


THOUSANDS, CLASSES, PHIS = (1_000, 10_000, 100_000, 1_000_000), (10, 100, 1_000, 5_000, 21_000), (-3, 0, 3, 5, 7)
GROWTHS = (
    Growth("images", listing, THOUSANDS),
    Growth("images", splitting, THOUSANDS),
    Growth("images", first_batch, THOUSANDS),
    Growth("classes", splitting_classes, CLASSES),
    Growth("classes", evaluating, CLASSES, reason="a confusion matrix has classes x classes entries, each read once"),
    Growth("classes", classifier, CLASSES),
    Growth("processes", processes, (1, 2, 4)),
    Growth("network", counting, PHIS, weighted_layers),
    Growth(
        "network",
        building,
        PHIS,
        weighted_layers,
        parameters,
        reason="random initial weights grow with the parameters, the rest with the layers",
    ),
)


@dataclass(frozen=True)
class Cost:
    """CPU seconds and MB of one size."""

    size: int
    cpu_s: float
    peak_mb: float


def measure(growth: Growth, size: int) -> Cost:
    """The cost in this process and its children."""
    work = growth.work(size)
    before, cpu = resident_bytes(), sum(os.times()[:4])
    result = work()
    children = result if growth.work is processes else 0
    return Cost(size, sum(os.times()[:4]) - cpu, (max(0, peak_resident_bytes() - before) + children) / 1e6)


def in_process(growth: Growth, size: int) -> Cost:
    """The cost in a process of its own."""
    command = [sys.executable, __file__, "--measure", growth.name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def exponent(sizes: list[int], costs: list[float], noise: float) -> float:
    """Slope over logarithms from the last size before the cost doubled; 0 if it never did or is all noise."""
    least = max(costs[0], noise)
    first = next((place for place, cost in enumerate(costs) if cost > 2 * least), None)
    if first is None:
        return 0.0
    start = min(first, len(costs) - 2)
    points = [(math.log(size), math.log(max(cost, noise))) for size, cost in zip(sizes, costs, strict=True)][start:]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def row(growth: Growth, costs: list[Cost]) -> dict[str, Any]:
    """Exponents and verdict of one growth."""
    time_sizes, memory_sizes = ([scale(each.size) for each in costs] for scale in (growth.scale, growth.memory_scale))
    in_time = exponent(time_sizes, [each.cpu_s for each in costs], SECONDS)
    in_memory = exponent(memory_sizes, [each.peak_mb for each in costs], MEGABYTES)
    worst = max(in_time, in_memory)
    verdict = (
        "does not grow" if not worst else "linear or less" if worst <= LINEAR else growth.reason or "WORSE THAN LINEAR"
    )
    return {
        "axis": growth.axis,
        "work": growth.name,
        "costs": [asdict(each) for each in costs],
        "time_exponent": in_time,
        "memory_exponent": in_memory,
        "verdict": verdict,
    }


def show(found: dict[str, Any]) -> None:
    """Print a row of the Markdown table."""
    costs = found["costs"]
    sizes = ", ".join(f"{each['size']:,}" for each in costs)
    seconds = ", ".join(f"{each['cpu_s']:.2f}" for each in costs)
    megabytes = ", ".join(f"{each['peak_mb']:.0f}" for each in costs)
    exponents = f"{found['time_exponent']:.2f} | {megabytes} | {found['memory_exponent']:.2f}"
    print(f"| {found['axis']} | {found['work']} | {sizes} | {seconds} | {exponents} | {found['verdict']} |", flush=True)


def main() -> None:
    """Measure, fit and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", default=sorted({each.axis for each in GROWTHS}))
    parser.add_argument("--repeats", type=int, default=3, help="runs of each size, of which the cheapest counts")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, size = options.measure
        growth = next(each for each in GROWTHS if each.name == name)
        print(json.dumps(asdict(measure(growth, int(size)))))
        return
    machine = f"{cpu_name()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    print(f"{machine}; the cheapest of {options.repeats} runs of each size.\n")
    print(
        "| axis | work | sizes | CPU s | exponent | peak MB | exponent | verdict |\n|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for growth in (each for each in GROWTHS if each.axis in options.axes):
        runs = [[in_process(growth, size) for _ in range(options.repeats)] for size in growth.sizes]
        # Other load only ever adds to CPU time.
        rows.append(row(growth, [min(each, key=lambda cost: cost.cpu_s) for each in runs]))
        show(rows[-1])
    if any(each["verdict"] == "WORSE THAN LINEAR" for each in rows):
        sys.exit("something grows faster than linearly")


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main()
