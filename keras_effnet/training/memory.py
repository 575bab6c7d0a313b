"""How much memory a training step takes, measured in a process of its own, and the batch size that fits.

Imports `config`, `complexity`, `machine`, `training`, `errors`. In this process the figure would drown in what
TensorFlow holds already, and a step too large would take the training down with it. Run as a module this file is that
process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from keras_effnet.complexity.memory import TrainingMemory, training_bytes
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.system.machine import host_bytes

_LIMIT = 900.0  # seconds for one measurement; B7 at 600 pixels traces for minutes
_STEPS = 2  # the first makes the optimizer's slots, the second has all that a step ever has
_KB = 1024
_SHARE = 0.8  # of the memory that is free: the pipeline and other programs want some too
_LARGEST, _FEWEST_STEPS = 256, 16


# ------------------------------------------------------------------ what there is


def _gpus() -> list[int]:
    """Free bytes of each NVIDIA GPU that may be used, as its driver says; asking TensorFlow would take the memory."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        query.append(f"--id={visible.split(',')[0]}")
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
        return [int(line) * _KB**2 for line in done.stdout.split("\n") if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def trains_on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def available_bytes() -> tuple[int, str]:
    """What a training may take on the device that trains, and that memory's name in words.

    Returns:
        Bytes of the first GPU's free memory where TensorFlow sees a GPU, else of what the system and its control groups
        leave.

    Raises:
        UserError: Neither tells.
    """
    if trains_on_gpu():
        free = _gpus()
        if not free:
            raise UserError("The driver does not tell how much memory the GPU has free; give a batch size.")
        return free[0], "GPU memory"
    return host_bytes()


# ------------------------------------------------------------------ what a step takes


def measured_step_bytes(config: TrainConfig, batch_size: int, classes: int, *, timeout: float = _LIMIT) -> int:
    """Peak memory of training, measured over two steps and a validation batch in a process of its own.

    Args:
        config: `TrainConfig`; its own batch size plays no part.
        batch_size: Int, images a step.
        classes: Int.
        timeout: Float, seconds after which to give up.

    Returns:
        Bytes: on a CPU by how much the process grew after TensorFlow had started, on a GPU the peak of its memory.

    Raises:
        MemoryError: There was not enough.
        UserError: The training failed for another reason, or took too long.
    """
    job = json.dumps({"config": asdict(config), "batch_size": batch_size, "classes": classes})
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    what = f"A training step of {batch_size} images"
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, job], capture_output=True, text=True, timeout=timeout, env=environment
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{what} was not done in {timeout:g} seconds; give a batch size.") from None
    if done.returncode < 0 or any(word in done.stderr for word in ("ResourceExhausted", "MemoryError", "bad_alloc")):
        raise MemoryError(f"{what} has not enough memory.")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode or not lines:
        raise UserError(f"{what} cannot be measured: {lines[-1] if lines else 'no figure came back'}")
    return int(lines[-1])


def _resident(key: str) -> int:
    """Bytes of this process by a key of /proc/self/status: `VmRSS` now, `VmHWM` at most so far."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * _KB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KB)


def _main(job: str) -> None:
    with suppress(OSError):  # should memory end, this process is to go, not the one that waits for it
        Path("/proc/self/oom_score_adj").write_text("1000")
    import numpy as np
    import tensorflow as tf

    from keras_effnet import training

    description = json.loads(job)
    batch_size, classes = description["batch_size"], description["classes"]
    config = replace(
        TrainConfig.from_dict(description["config"]),
        batch_size=batch_size,
        epochs=1,
        warmup_epochs=0,
        progressive=None,  # its last size is the largest, and the network's own
        strategy="none",
    )
    size = config.spec.image_size
    tf.zeros(1).numpy()  # starts the device
    before = _resident("VmRSS")
    model = training.build_model(config, classes)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3)).astype("float32")
    batch = tf.data.Dataset.from_tensors((images, np.arange(batch_size) % classes))
    training.train(model, batch.repeat(max(_STEPS, config.accumulate)), batch, config)
    on_gpu = tf.config.list_physical_devices("GPU")
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else _resident("VmHWM") - before
    print(max(peak, 0))


# ------------------------------------------------------------------ what fits


def _power_of_two(number: float) -> int:
    """The largest power of two that is no larger, and at least 1."""
    return 1 << max(0, int(number).bit_length() - 1)


def _within(measure: Callable[[int], int], batch_size: int) -> float:
    try:
        return measure(batch_size)
    except MemoryError:
        return float("inf")


def fitting_batch_size(measure: Callable[[int], int], available: int, *, largest: int, share: float = _SHARE) -> int:
    """The largest power of two whose step fits into a share of the memory.

    Memory is a constant and so much for each image. Two small batches give that line, the line gives the size, and
    the size is measured too before it is believed; one that does not fit is halved.

    Args:
        measure: Function from a batch size to the peak in bytes; raises `MemoryError` where there is not enough.
        available: Int, bytes.
        largest: Int, batch size that is not exceeded.
        share: Float in (0, 1], of the memory that may be taken.

    Returns:
        Int, a power of two.

    Raises:
        UserError: Not even one image fits.
    """
    budget = share * available
    largest = _power_of_two(largest)
    taken: dict[int, float] = {}

    def fits(size: int) -> bool:
        taken.setdefault(size, _within(measure, size))
        return taken[size] <= budget

    high = min(16, largest)
    while not fits(high):
        if high == 1:
            raise UserError(
                f"A training step of one image does not fit into {available / 1e9:.1f} GB of free memory; "
                "take a smaller network or image_size."
            )
        high //= 2
    low = max(1, high // 4)
    size = high
    if high < largest and 2 * high not in taken and low < high and fits(low):
        slope = (taken[high] - taken[low]) / (high - low)
        room = (budget - taken[high]) / slope if slope > 0 else largest
        size = min(largest, _power_of_two(high + room))
    while not fits(size):
        size //= 2
    return size


def predicted_memory(config: TrainConfig, batch_size: int, classes: int) -> TrainingMemory:
    """`complexity.training_bytes` of a config on this machine. Frozen parts and several devices count as if not so.

    Args:
        config: `TrainConfig`; its own batch size plays no part.
        batch_size: Int, images a step.
        classes: Int.
    """
    from keras_effnet.training.run import resolve_precision

    return training_bytes(
        config.spec,
        batch_size,
        precision=resolve_precision(config.precision),
        # Accumulated gradients lie in slots, too.
        optimizer_slots=(1 if config.optimizer == "sgd" else 2) + (config.accumulate > 1),
        ema=config.ema > 0,
        classes=classes,
        device="gpu" if trains_on_gpu() else "cpu",
    )


def automatic_batch_size(config: TrainConfig, classes: int, images: int) -> tuple[int, str]:
    """The batch size of `"auto"`, and one sentence why.

    At most 256, and no more than leaves 16 steps an epoch; below that, what fits into 80% of the free memory. Steps are
    measured only where the predicted memory is more than half of that.

    Args:
        config: `TrainConfig`; its own batch size plays no part.
        classes: Int.
        images: Int, in the training set.

    Raises:
        UserError: Not even one image fits, or it cannot be measured.
    """
    largest = _power_of_two(min(_LARGEST, images // _FEWEST_STEPS))
    bound = (
        "the largest that is tried"
        if largest == _LARGEST
        else f"the largest power of two that leaves {_FEWEST_STEPS} steps an epoch of {images} images"
    )
    free, name = available_bytes()
    predicted = predicted_memory(config, largest, classes).total
    room = f"of {free / 1e9:.1f} GB free {name}"
    if predicted <= _SHARE / 2 * free:
        return largest, f"Batch size {largest}: {bound}; predicted to take {predicted / 1e9:.1f} {room}."
    taken: dict[int, int] = {}

    def measure(size: int) -> int:
        taken[size] = measured_step_bytes(config, size, classes)
        return taken[size]

    size = fitting_batch_size(measure, free, largest=largest)
    reason = bound if size == largest else f"the largest power of two that fits into {_SHARE:.0%} of it"
    return size, f"Batch size {size}: {reason}; measured to take {taken[size] / 1e9:.1f} {room}."


if __name__ == "__main__":
    _main(sys.argv[1])
