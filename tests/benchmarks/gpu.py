"""Training speed on a GPU, ours beside timm: images per second, memory, share of the peak.

    python tests/benchmarks/gpu.py [NAME ...] [--rounds 3] [--peak TFLOPS] [--json FILE]
    python tests/benchmarks/gpu.py --dry-run      # two tiny steps of each on the CPU: is everything installed?

Ours runs on every backend of Keras that is installed (JAX, torch, TensorFlow; XLA or torch.compile as Keras chooses),
timm's network in channels_last, under autocast and torch.compile, with a fused AdamW. Each run has its own process;
they alternate, and the table has medians. All compute in bfloat16, or in float16 with loss scaling on GPUs before
Ampere, on the same images, which are in GPU memory from the start. Ours reads its metrics after every step, as
`model.fit` does; timm's loop waits once at the end. The share of the peak counts 6 FLOPs per MAC (forward 2, backward
4) of `complexity.count` against the data sheet's dense half-precision figure; `--peak` gives that of GPUs not in
`PEAKS`.

It ends with one line where there is no GPU. **It has never been run on one**: `--dry-run` is all that was tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.complexity.counting import count

BATCHES = {"b0": 256, "b4": 64, "v2-s": 64}
TIMM_NAMES = {"b0": "efficientnet_b0", "b4": "efficientnet_b4", "v2-s": "tf_efficientnetv2_s"}
CLASSES, WARM_UP, STEPS = 1000, 5, 30
# Dense TFLOP/s in half precision, by the data sheets; the first name that occurs in the GPU's counts.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125, "T4": 65, "V100": 125, "P100": 19}


@dataclass(frozen=True)
class Case:
    """Size of the problem: network, pixels, images per step, steps, precision (`"bfloat16"` or `"float16"`)."""

    name: str
    size: int
    batch: int
    steps: int
    precision: str


@dataclass(frozen=True)
class Run:
    """A training that is ready: a step, a function that waits for the GPU, and one that tells the peak in bytes."""

    step: Callable[[], Any]
    wait: Callable[[], Any]
    peak_bytes: Callable[[], int]


def random_batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in 0..255 and numbers of classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (case.batch, case.size, case.size, 3)).astype("float32")
    return images, rng.integers(0, CLASSES, case.batch)


def ours(case: Case) -> Run:
    """This package on the backend of the process."""
    import keras

    from keras_effnet.models import EfficientNet

    shape = (case.size, case.size, 3)
    model = EfficientNet(case.name, classes=CLASSES, input_shape=shape, dtype=f"mixed_{case.precision}")
    model.compile(keras.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy")
    images, labels = map(keras.ops.convert_to_tensor, random_batch(case))
    wait, peak_bytes = _device(keras.backend.backend())
    return Run(lambda: model.train_on_batch(images, labels), wait, peak_bytes)


def _device(backend: str) -> tuple[Callable[[], Any], Callable[[], int]]:
    """How a library waits for its device, and its peak of memory; 0 on the CPU."""
    if backend == "jax":
        import jax

        device = jax.local_devices()[0]
        return lambda: None, lambda: (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    if backend == "torch":
        import torch

        found = torch.cuda.is_available()
        return (
            torch.cuda.synchronize if found else lambda: None,
            torch.cuda.max_memory_allocated if found else lambda: 0,
        )
    import tensorflow as tf

    found = bool(tf.config.list_physical_devices("GPU"))
    return lambda: None, lambda: tf.config.experimental.get_memory_info("GPU:0")["peak"] if found else 0


def timms(case: Case) -> Run:
    """timm's network, as its users train it."""
    import timm
    import torch

    spec = architecture_spec(case.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = {"drop_rate": spec.dropout_rate, "drop_path_rate": spec.drop_connect_rate}
    model = timm.create_model(TIMM_NAMES[case.name], num_classes=CLASSES, **rates).train()
    model = model.to(device, memory_format=torch.channels_last)
    images, labels = (torch.from_numpy(array).to(device) for array in random_batch(case))
    images = (images.permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=device == "cuda")
    scaler = torch.amp.GradScaler(device, enabled=case.precision == "float16")
    forward = torch.compile(model) if device == "cuda" else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, getattr(torch, case.precision)):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return Run(step, *_device("torch"))


@dataclass(frozen=True)
class Contender:
    """A library on a backend.

    Args:
        name: String, in the table.
        packages: Tuple of strings, which must be installed.
        backend: String, of Keras.
        prepare: Function from a `Case` to a `Run`.
    """

    name: str
    packages: tuple[str, ...]
    backend: str
    prepare: Callable[[Case], Run]


CONTENDERS = (
    Contender("ours, jax", ("jax",), "jax", ours),
    Contender("ours, torch", ("torch",), "torch", ours),
    Contender("ours, tensorflow", ("tensorflow",), "tensorflow", ours),
    Contender("timm", ("torch", "timm"), "torch", timms),
)


def measure(contender: Contender, case: Case) -> dict[str, float]:
    """Images per second and bytes, in this process."""
    run = contender.prepare(case)
    for _ in range(min(WARM_UP, case.steps)):
        run.step()
    run.wait()
    start = time.perf_counter()
    for _ in range(case.steps):
        run.step()
    run.wait()
    seconds = time.perf_counter() - start
    return {"images_per_s": case.batch * case.steps / seconds, "peak_bytes": run.peak_bytes()}


def apart(contender: Contender, case: Case) -> dict[str, float] | str:
    """The measurement in a process of its own, or the last line of its error."""
    command = [sys.executable, __file__, "--measure", contender.name, json.dumps(vars(case))]
    environment = os.environ | {"KERAS_BACKEND": contender.backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 else lines[-1] if lines else f"exit code {done.returncode}"


def gpu() -> tuple[str, float]:
    """Name and compute capability of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        name, capability = (
            subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].split(",")
        )
        return name.strip(), float(capability)
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        sys.exit("No NVIDIA GPU: nvidia-smi finds none. --dry-run tries the script on the CPU.")


def compare(case: Case, contenders: list[Contender], rounds: int, peak: float | None) -> list[dict[str, Any]]:
    """Rows of the table: every contender's median of the rounds."""
    found: dict[str, list[dict[str, float]]] = {each.name: [] for each in contenders}
    errors: dict[str, str] = {}
    for _ in range(rounds):
        for contender in contenders:
            if contender.name in errors:
                continue
            measured = apart(contender, case)
            if isinstance(measured, str):
                errors[contender.name] = measured
            else:
                found[contender.name].append(measured)
    flops = 6 * count(architecture_spec(case.name), image_size=case.size, classes=CLASSES).macs
    rows = []
    for contender in contenders:
        row: dict[str, Any] = vars(case) | {"contender": contender.name, "error": errors.get(contender.name)}
        if runs := found[contender.name]:
            row |= {key: median(run[key] for run in runs) for key in runs[0]}
            row["share_of_peak"] = row["images_per_s"] * flops / peak / 1e12 if peak else None
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows of a Markdown table."""
    for row in rows:
        if row["error"]:
            print(f"| {row['name']} {row['size']}:{row['batch']} | {row['contender']} | failed: {row['error']} | | |")
            continue
        share = f"{row['share_of_peak']:.0%}" if row["share_of_peak"] else "-"
        figures = f"{row['images_per_s']:,.0f} | {row['peak_bytes'] / 1e9:.1f} | {share}"
        print(f"| {row['name']} {row['size']}:{row['batch']} | {row['contender']} | {figures} |", flush=True)


def main() -> None:
    """Measure what is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=float, help="dense TFLOP/s in half precision")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, case = options.measure
        contender = next(each for each in CONTENDERS if each.name == name)
        print(json.dumps(measure(contender, Case(**json.loads(case)))))
        return
    if unknown := set(options.names) - set(BATCHES):
        sys.exit(f"It knows {', '.join(BATCHES)}, not {', '.join(unknown)}.")
    contenders = [each for each in CONTENDERS if all(map(importlib.util.find_spec, each.packages))]
    if options.dry_run:
        failed = False
        for row in compare(Case("b0", 32, 2, 2, "bfloat16"), contenders, 1, None):
            failed |= bool(row["error"])
            print(f"{row['contender']}: {row['error'] or 'runs'}")
        sys.exit(failed)
    device, capability = gpu()
    peak = options.peak or next((peak for name, peak in PEAKS.items() if name in device), None)
    precision = "bfloat16" if capability >= 8 else "float16"
    print(
        f"{device}, peak {peak or 'unknown'} TFLOP/s, {precision}, medians of {options.rounds} runs of {STEPS} steps.\n"
    )
    print("| network | library | images/s | peak GB | share of the peak |\n|---|---|---|---|---|")
    rows = []
    for name in options.names:
        case = Case(name, architecture_spec(name).image_size, BATCHES[name], STEPS, precision)
        rows += compare(case, contenders, options.rounds, peak)
        show(rows[-len(contenders) :])


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main()
