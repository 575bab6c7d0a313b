"""Export of a network beside plain `TFLiteConverter`: time, memory, file size, accuracy, as Markdown tables.

    python tests/benchmarks/export.py cost [NAME ...]          # b7 by default; random weights serve
    python tests/benchmarks/export.py default [NAME ...]       # lite0 and b0 by default
    python tests/benchmarks/export.py files FOLDER [NAME ...]  # lite0, lite1, lite2 by default

`cost`: seconds and peak memory of int8 with 4 calibration images, ours of `export_tflite` with everything that proves
the file, theirs of `TFLiteConverter.from_keras_model` on the same network of keras.applications. Each in a process of
its own, in turn; memory counts from the start of the process, the network included.

`default`: the same of the int8 method that an export tries first, correction included, with the default of 100
calibration images for both.

`files`: every precision of published networks, calibrated on 100 images of FOLDER and compared on all others. FOLDER
as in `accuracy.py`. Latencies are of one thread, the files being timed in turn.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import keras
import numpy as np
from accuracy import labelled_images

from keras_effnet.system.machine import cpu_name

ROUNDS = 1  # a round of B7 takes minutes
FEW, DEFAULT = 4, 100  # calibration images
OURS, THEIRS = "keras_effnet", "keras.applications"


def random_images(side: int, count: int) -> np.ndarray:
    from keras_effnet.export.calibration import synthetic_images

    return synthetic_images((side, side, 3), count)


def network(library: str, name: str) -> keras.Model:
    """A network with random weights; keras.applications has no Lite networks, so that both convert ours then."""
    from keras_effnet.models import efficientnet

    title = f"EfficientNet{name.upper().replace('LITE', 'Lite')}"
    builders = efficientnet if library == OURS else keras.applications
    return getattr(builders, title, getattr(efficientnet, title))(weights=None)


def ours(name: str, method: str, images: str) -> None:
    from keras_effnet.export import export_tflite

    model = network(OURS, name)
    started = time.perf_counter(), cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        path, calibration = Path(folder) / "model.tflite", random_images(model.input_shape[1], int(images))
        # Random weights give nearly tied answers, so agreement means nothing here.
        result = export_tflite(
            model, path, "int8", calibration=calibration, input_type="uint8", method=method, allow_degraded=True
        )
        report(started, result.size_bytes)


def theirs(name: str, method: str, images: str) -> None:
    import tensorflow as tf

    model = network(THEIRS, name)
    started = time.perf_counter(), cpu_seconds()
    pixels = random_images(model.input_shape[1], int(images))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in pixels)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.float32
    report(started, len(converter.convert()))


def cpu_seconds() -> float:
    """CPU time of this process and of the children that it waited for."""
    return sum(os.times()[:4])


def report(started: tuple[float, float], size: int) -> None:
    wall, cpu = time.perf_counter() - started[0], cpu_seconds() - started[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print("\n" + json.dumps([wall, cpu, peak, size / 1e6]), flush=True)


def cost(*names: str) -> None:
    """Plain ranges, which both compute."""
    compare(names or ("b7",), "minmax", FEW)


def default(*names: str) -> None:
    compare(names or ("lite0", "b0"), "corrected", DEFAULT)


def compare(names: Sequence[str], method: str, images: int) -> None:
    print(f"{cpu_name()}, {os.cpu_count()} cores; {OURS}, {method} / {THEIRS}; {images} images, one run each.\n")
    print("| network | wall s | ratio | CPU s | ratio | peak GB | file MB |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        runs: dict[str, list] = {OURS: [], THEIRS: []}
        for _ in range(ROUNDS):
            for library, job in ((OURS, "ours"), (THEIRS, "theirs")):
                command = [sys.executable, __file__, job, name, method, str(images)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[library].append(json.loads(done.stdout.strip().splitlines()[-1]))
        mine, other = ([median(column) for column in zip(*rows, strict=True)] for rows in runs.values())
        wall, cpu, peak, size = (f"{a:.1f} / {b:.1f}" for a, b in zip(mine, other, strict=True))
        print(
            f"| {name} | {wall} | {mine[0] / other[0]:.2f} | {cpu} | {mine[1] / other[1]:.2f} | {peak} | {size} |",
            flush=True,
        )


def files(folder: str, *names: str) -> None:
    from keras_effnet.export.bundle import write_bundle
    from keras_effnet.export.report import cells
    from keras_effnet.inference import artifacts

    source = labelled_images(Path(folder))
    order = np.random.default_rng(0).permutation(len(source.labels))
    print(f"{cpu_name()}, one thread; 100 images to calibrate, {len(order) - 100} others to compare on.\n")
    headers = ("precision", "size", "top-1", "top-5", "agreement", "SQNR", "latency", "memory")
    print(f"| network | {' | '.join(headers)} | to float32 |")
    print("|---" * (len(headers) + 2) + "|")
    for name in names or ("lite0", "lite1", "lite2"):
        artifact = artifacts.load(name)
        with tempfile.TemporaryDirectory() as out:
            bundle = write_bundle(
                artifact.model,
                out,
                ("none", "float16", "dynamic", "int8", "int16x8", "mixed"),
                held_out=source.select(order[100:]),
                calibration=source.select(order[:100]),
                input_type="uint8",
                image_spec=artifact.image_spec,
                announce=lambda step: print(step, file=sys.stderr, flush=True),
            )
        for row in bundle.rows:
            ratio = f"{row.latency.median_ms / bundle.rows[0].latency.median_ms:.2f}" if row.latency else ""
            print(f"| {name} | {' | '.join(cells(row, headers))} | {ratio} |", flush=True)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        jobs = {job.__name__: job for job in (ours, theirs, cost, default, files)}
        if len(sys.argv) < 2 or sys.argv[1] not in jobs:
            sys.exit(__doc__)
        jobs[sys.argv[1]](*sys.argv[2:])
