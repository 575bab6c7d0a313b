"""100,000 tiny images in folders: CPU seconds and peak memory of `check-data` and of the first training batch.

    python tests/benchmarks/many_files.py [--images 100000] [--step check-data|first-batch]

The files are hard links to a few hundred distinct images in a temporary folder. Each step runs in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from keras_effnet.system.machine import cpu_name

FILE = Path(__file__).resolve()
CLASSES, DISTINCT, SIDE = 100, 500, 16


def make(folder: Path, count: int) -> None:
    """Write `count` files in `CLASSES` class folders."""
    rng = np.random.default_rng(0)
    originals = folder.parent / "originals"
    originals.mkdir()
    for number in range(DISTINCT):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3)).astype("uint8")).save(originals / f"{number}.png")
    for label in range(CLASSES):
        (folder / f"class{label:03d}").mkdir(parents=True)
    for number in range(count):
        source = originals / f"{number % DISTINCT}.png"
        os.link(source, folder / f"class{number % CLASSES:03d}" / f"{number:06d}.png")


def check(folder: Path) -> None:
    """`keras-effnet check-data FOLDER`."""
    from keras_effnet.cli.app import main

    main(["check-data", str(folder)])


def first_batch(folder: Path) -> None:
    """Load the folder and decode one training batch."""
    from keras_effnet.datasets.loading import load
    from keras_effnet.pipeline.batches import image_pipeline
    from keras_effnet.preprocessing import ImageSpec

    data = load(folder)
    batches = image_pipeline(data, ImageSpec(32), 32, training=True, cache=False)
    images, _ = next(iter(batches))
    assert images.shape == (32, 32, 32, 3)


STEPS = {"check-data": check, "first-batch": first_batch}


def measure(step: str, folder: Path) -> None:
    """Run a step in this process and print what it took as a row of the table."""
    start = time.perf_counter()
    with redirect_stdout(sys.stderr):
        STEPS[step](folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    wall, peak = time.perf_counter() - start, used.ru_maxrss / 1024
    print(f"| {step} | {used.ru_utime + used.ru_stime:.1f} | {wall:.1f} | {peak:,.0f} |")


def main() -> None:
    """Measure every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.folder:
        measure(args.step, args.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        make(folder, args.images)
        print(f"{cpu_name()}, {os.cpu_count()} cores; {args.images:,} PNGs of {SIDE} pixels.\n")
        print("| step | CPU s | wall s | peak MiB |\n|---|---|---|---|", flush=True)
        for step in [args.step] if args.step else STEPS:
            # Run in the temporary folder: `check-data` writes its report to the current one.
            command = [sys.executable, FILE, "--step", step, "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=temporary)
            print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main()
