"""Cost of a training step beside keras.applications or timm, as a Markdown table.

    python tests/benchmarks/train_step.py [--rounds 9] [SIZE:BATCH ...]      # CPU; 224:16 and 64:64 by default
    python tests/benchmarks/train_step.py --gpu [--tflops PEAK] [NAME ...]   # b0 and b4 by default

On the CPU both B0s live in one process on TensorFlow, see the same images and take a few steps of AdamW in turn,
`--rounds` times. CPU time counts all threads; the ratio is the median of the rounds' own ratios, so that other load
weighs on both. The middle half of those ratios tells how far to trust it.

On the GPU each runs in a process of its own, in mixed_bfloat16: ours under `KERAS_BACKEND=jax` (or `torch`) and XLA,
timm's in channels_last, under autocast and torch.compile; same images, in GPU memory from the start. Ours reads its
metrics after every step, as `model.fit` does, timm's loop waits once at the end. The share of the chip's peak counts 6
FLOPs a MAC (forward 2, backward 4) and needs the data sheet's dense bfloat16 figure in TFLOP/s.
**The GPU part has never been run: it was written on a machine without one.**
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median, quantiles

import numpy as np

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.complexity.counting import count
from keras_effnet.system.machine import cpu_name

CASES, STEPS, WARM_UP = ("224:16", "64:64"), 3, 3
OURS, THEIRS, TIMM = "keras_effnet", "keras.applications", "timm"
CLASSES = 100
GPU_BATCHES, GPU_STEPS = {"b0": 256, "b4": 64}, 30


def random_images(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, size, size, 3)).astype("float32"), rng.integers(0, CLASSES, batch)


def timed(step: Callable[[], object], steps: int) -> tuple[float, float]:
    """CPU and wall seconds of one step."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        step()
    return (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps


# ------------------------------------------------------------------ CPU


def keras_step(library: str, size: int, batch: int) -> tuple[Callable[[], object], float]:
    """A step of a library's random B0, already traced, ours with the kernels that `train` uses; CPU seconds of tracing.

    The optimizer is that of most recipes: AdamW with a schedule and weight decay.
    """
    import keras

    from keras_effnet.models import efficientnet, fused_batch_norm
    from keras_effnet.training import fused_updates

    build = (efficientnet if library == OURS else keras.applications).EfficientNetB0
    model = build(weights=None, classes=CLASSES, input_shape=(size, size, 3))
    rates = keras.optimizers.schedules.CosineDecay(1e-5, 1000, warmup_target=1e-3, warmup_steps=100)
    optimizer = keras.optimizers.AdamW(rates, weight_decay=1e-4)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    step = partial(model.train_on_batch, *random_images(batch, size))
    with ExitStack() as stack:
        for block in (fused_batch_norm, fused_updates) if library == OURS else ():
            stack.enter_context(block(model))
        first, _ = timed(step, 1)
        later, _ = timed(step, WARM_UP)
        compiled = model.train_function
    model.train_function = compiled  # leaving the blocks drops the compiled step, which is to be timed here
    return step, first - later


def on_cpu(cases: list[str], repeats: int) -> None:
    print(f"{cpu_name()}, {os.cpu_count()} cores; {OURS} / {THEIRS}, {repeats} rounds of {STEPS} steps in turn.\n")
    print("| pixels | batch | CPU s | CPU ratio | middle half | wall s | tracing s |\n|---|---|---|---|---|---|---|")
    for case in cases:
        size, batch = map(int, case.split(":"))
        steps, traced = zip(*(keras_step(library, size, batch) for library in (OURS, THEIRS)), strict=True)
        rounds = []
        for number in range(repeats):
            first = number % 2  # whoever comes second finds warmer caches
            times = {which: timed(steps[which], STEPS) for which in (first, 1 - first)}
            rounds.append((times[0], times[1]))
        ratios = [ours[0] / theirs[0] for ours, theirs in rounds]
        low, _, high = quantiles(ratios, n=4)
        cpu, wall = (" / ".join(f"{median(pair[i][clock] for pair in rounds):.2f}" for i in (0, 1)) for clock in (0, 1))
        row = f"| {size} | {batch} | {cpu} | {median(ratios):.3f} | {low:.3f} to {high:.3f} | {wall} |"
        print(f"{row} {traced[0]:.1f} / {traced[1]:.1f} |", flush=True)


# ------------------------------------------------------------------ GPU


def gpu_name() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        sys.exit("--gpu needs an NVIDIA GPU, and nvidia-smi finds none; leave --gpu out to measure on the CPU.")


def ours_on_gpu(name: str) -> tuple[Callable[[], object], Callable[[], None], Callable[[], int]]:
    """A step, what waits until all are done, and what tells the peak of memory."""
    import keras

    from keras_effnet import models

    spec, batch = architecture_spec(name), GPU_BATCHES[name]
    model = models.EfficientNet(spec, classes=CLASSES, dtype="mixed_bfloat16")
    model.compile(keras.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy", jit_compile=True)
    step = partial(model.train_on_batch, *map(keras.ops.convert_to_tensor, random_images(batch, spec.image_size)))
    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        return step, lambda: None, lambda: device.memory_stats()["peak_bytes_in_use"]
    import torch

    return step, torch.cuda.synchronize, torch.cuda.max_memory_allocated


def timm_on_gpu(name: str) -> tuple[Callable[[], object], Callable[[], None], Callable[[], int]]:
    import timm
    import torch

    spec = architecture_spec(name)
    rates = {"drop_rate": spec.dropout_rate, "drop_path_rate": spec.drop_connect_rate}
    model = timm.create_model(f"efficientnet_{name}", num_classes=CLASSES, **rates)
    model = model.cuda().train().to(memory_format=torch.channels_last)
    images, labels = (torch.from_numpy(array).cuda() for array in random_images(GPU_BATCHES[name], spec.image_size))
    images = (images.permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    forward = torch.compile(model)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    return step, torch.cuda.synchronize, torch.cuda.max_memory_allocated


def measure_on_gpu(library: str, name: str) -> None:
    """Prints images a second and bytes; in a process of its own, started by `on_gpu`."""
    step, wait, peak = (timm_on_gpu if library == TIMM else ours_on_gpu)(name)
    timed(step, WARM_UP)
    wait()
    start = time.perf_counter()
    timed(step, GPU_STEPS)
    wait()
    print(json.dumps([GPU_BATCHES[name] * GPU_STEPS / (time.perf_counter() - start), peak()]))


def apart(library: str, name: str) -> list[float]:
    environment = {"KERAS_BACKEND": "jax"} | os.environ
    command = [sys.executable, __file__, "--measure", library, name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else sys.exit(done.stderr)


def on_gpu(names: list[str], tflops: float | None) -> None:
    backend = os.environ.get("KERAS_BACKEND", "jax")
    print(f"{gpu_name()}; {OURS} on {backend} / {TIMM}, mixed_bfloat16, medians of 3 runs of {GPU_STEPS} steps.\n")
    print("| network | batch | images/s | ratio | peak GB | share of the chip's peak |\n|---|---|---|---|---|---|")
    for name in names:
        runs = [(apart(OURS, name), apart(TIMM, name)) for _ in range(3)]
        (ours, ours_bytes), (theirs, their_bytes) = (
            (median(pair[i][0] for pair in runs), median(pair[i][1] for pair in runs)) for i in (0, 1)
        )
        flops = 6 * count(architecture_spec(name), classes=CLASSES).macs
        share = " / ".join(f"{rate * flops / tflops / 1e12:.0%}" for rate in (ours, theirs)) if tflops else "-"
        memory = f"{ours_bytes / 1e9:.1f} / {their_bytes / 1e9:.1f}"
        print(
            f"| {name} | {GPU_BATCHES[name]} | {ours:.0f} / {theirs:.0f} | {ours / theirs:.2f} | {memory} | {share} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tflops", type=float)
    parser.add_argument("--measure", metavar="LIBRARY", help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    if options.measure:
        measure_on_gpu(options.measure, options.cases[0])
    elif options.gpu:
        unknown = set(options.cases) - set(GPU_BATCHES)
        if unknown:
            sys.exit(f"--gpu knows {', '.join(GPU_BATCHES)}, not {', '.join(unknown)}.")
        on_gpu(options.cases or list(GPU_BATCHES), options.tflops)
    else:
        on_cpu(options.cases or list(CASES), options.rounds)
