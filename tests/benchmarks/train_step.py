"""CPU time of a training step beside keras.applications, as a Markdown table.

    python tests/benchmarks/train_step.py [--rounds 9] [SIZE:BATCH ...]      # 224:16 and 64:64 by default

Both B0s live in one process on TensorFlow, see the same images and take a few steps of AdamW in turn, `--rounds` times.
CPU time counts all threads; the ratio is the median of the rounds' own ratios, so that other load weighs on both. The
middle half of those ratios tells how far to trust it. `gpu.py` is its counterpart for GPUs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median, quantiles

import numpy as np

from keras_effnet.system.machine import cpu_name

CASES, STEPS, WARM_UP = ("224:16", "64:64"), 3, 3
OURS, THEIRS = "keras_effnet", "keras.applications"
CLASSES = 100


def random_images(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, size, size, 3)).astype("float32"), rng.integers(0, CLASSES, batch)


def timed(step: Callable[[], object], steps: int) -> tuple[float, float]:
    """CPU and wall seconds of one step."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        step()
    return (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps


def keras_step(library: str, size: int, batch: int) -> tuple[Callable[[], object], float]:
    """A step of a library's random B0, already traced, ours with the kernels that `train` uses; CPU seconds of tracing.

    The optimizer is that of most recipes: AdamW with a schedule and weight decay.
    """
    import keras

    from keras_effnet.models import efficientnet, fused_batch_norm
    from keras_effnet.training import fused_gradients, fused_updates

    build = (efficientnet if library == OURS else keras.applications).EfficientNetB0
    model = build(weights=None, classes=CLASSES, input_shape=(size, size, 3))
    rates = keras.optimizers.schedules.CosineDecay(1e-5, 1000, warmup_target=1e-3, warmup_steps=100)
    optimizer = keras.optimizers.AdamW(rates, weight_decay=1e-4)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    step = partial(model.train_on_batch, *random_images(batch, size))
    with ExitStack() as stack:
        for block in (fused_batch_norm, fused_gradients, fused_updates) if library == OURS else ():
            stack.enter_context(block(model))
        first, _ = timed(step, 1)
        later, _ = timed(step, WARM_UP)
        compiled = model.train_function
    model.train_function = compiled  # leaving the blocks drops the compiled step, which is to be timed here
    return step, first - later


def compare(cases: list[str], repeats: int) -> None:
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


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rounds", type=int, default=9)
        parser.add_argument("cases", nargs="*")
        options = parser.parse_args()
        compare(options.cases or list(CASES), options.rounds)
