"""int8 export by channel equalization beside plain `TFLiteConverter`: exactness in float, time, memory and file size.

    python tests/benchmarks/equalized_export.py FOLDER [NAME ...]  # b4 by default

Weights are random; batch normalization statistics and calibration are those of 20 images of FOLDER. Ours is
`export_tflite` with everything that proves the file, theirs `TFLiteConverter.from_keras_model` on the same network of
keras.applications, each in a process of its own; memory counts from the start of the process. `exact` is the largest
difference between the logits of the network and those of the equalized one, in float and relative to the largest logit.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_effnet.system.machine import cpu_name

IMAGES = 20


def real_images(folder: str, side: int) -> np.ndarray:
    from keras_effnet.export.calibration import load_images
    from keras_effnet.preprocessing import ImageSpec

    return load_images(folder, ImageSpec(side), IMAGES)


def settled_network(name: str, folder: str):
    """A network of random weights, with batch normalization statistics of real images, and the images."""
    from keras_effnet.models import efficientnet
    from keras_effnet.transfer import reestimate_batch_norm

    model = getattr(efficientnet, f"EfficientNet{name.upper()}")(weights=None, classifier_activation=None)
    images = real_images(folder, model.input_shape[1])
    reestimate_batch_norm(model, np.split(images, IMAGES // 4))
    return model, images


def ours(name: str, folder: str) -> None:
    from keras_effnet.export import export_tflite

    model, images = settled_network(name, folder)
    started = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as place:
        path, options = Path(place) / "model.tflite", {"method": "equalized", "task": "classification"}
        result = export_tflite(model, path, "int8", calibration=images, allow_degraded=True, **options)
        report(started, result.size_bytes)


def theirs(name: str, folder: str) -> None:
    import keras
    import tensorflow as tf

    model = getattr(keras.applications, f"EfficientNet{name.upper()}")(weights=None)
    images = real_images(folder, model.input_shape[1])
    started = time.perf_counter(), time.process_time()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.float32
    report(started, len(converter.convert()))


def exactness(name: str, folder: str) -> None:
    from keras_effnet.export.conversion.source import ExportSource
    from keras_effnet.export.int8.fitted_files import equalized
    from keras_effnet.system.output import captured_output

    model, images = settled_network(name, folder)
    with captured_output():
        graph, _ = equalized(ExportSource(model, images[:4], task="classification").graph("float32"))
    before, after = (each.predict(images[4:8], verbose=0) for each in (model, graph.model))
    print("\n" + json.dumps(float(np.abs(after - before).max() / np.abs(before).max())), flush=True)


def report(started: tuple[float, float], size: int) -> None:
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print("\n" + json.dumps([wall, cpu, peak, size / 1e6]), flush=True)


def measured(job: str, name: str, folder: str):
    """What a job printed last, in a process of its own."""
    command = [sys.executable, __file__, job, name, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(folder: str, *names: str) -> None:
    print(f"{cpu_name()}, {os.cpu_count()} cores; ours / TFLiteConverter, one run each, {IMAGES} images.\n")
    print("| network | wall s | ratio | CPU s | peak GB | file MB | exact |\n|---|---|---|---|---|---|---|")
    for name in names or ("b4",):
        mine, other, exact = (measured(job, name, folder) for job in ("ours", "theirs", "exactness"))
        wall, cpu, peak, size = (f"{a:.1f} / {b:.1f}" for a, b in zip(mine, other, strict=True))
        print(f"| {name} | {wall} | {mine[0] / other[0]:.2f} | {cpu} | {peak} | {size} | {exact:.1e} |", flush=True)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        jobs = {job.__name__: job for job in (ours, theirs, exactness)}
        if len(sys.argv) < 2:
            sys.exit(__doc__)
        jobs.get(sys.argv[1], lambda *rest: main(sys.argv[1], *rest))(*sys.argv[2:])
