"""Memory of a training step, measured in a subprocess, and the largest batch size that fits.

Measured in this process, the figure would include what TensorFlow has allocated before, and a step that runs out of
memory would end the training. Run as a module, this file is the subprocess. TensorFlow is imported when needed.
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
from typing import Any

from keras_effnet.complexity.memory import TrainingMemory, training_bytes
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.system.machine import host_bytes, peak_resident_bytes, resident_bytes

_LIMIT = 900.0  # seconds for one measurement; tracing B7 at 600 pixels takes minutes
_STEPS = 2  # the first creates the optimizer's slots, the second runs with everything allocated
_KB = 1024
_SHARE = 0.8  # of the free memory; the rest is for the input pipeline and other programs
_LARGEST, _FEWEST_STEPS = 256, 16


# ------------------------------------------------------------------ free memory


def _gpus() -> list[int]:
    """Free bytes of each visible NVIDIA GPU by its driver; TensorFlow would allocate the memory it reports on."""
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
    """Free memory of the device that trains.

    Returns:
        Pair of the free bytes and a phrase that names the memory: the first GPU's if TensorFlow sees a GPU, otherwise
        the main memory that the system and its control groups leave.

    Raises:
        UserError: The free memory cannot be determined.
    """
    if trains_on_gpu():
        free = _gpus()
        if not free:
            raise UserError("The free memory of the GPU cannot be read from its driver; set a batch size.")
        return free[0], "GPU memory"
    return host_bytes()


# ------------------------------------------------------------------ memory of a step


def measured_step_bytes(
    config: TrainConfig, batch_size: int, classes: int, *, task: str = "classification", timeout: float = _LIMIT
) -> int:
    """Peak memory of training, measured over two steps and a validation batch in a subprocess.

    Args:
        config: `TrainConfig`; its batch size is not used.
        batch_size: Int, images per step.
        classes: Int.
        task: String, what the network is for.
        timeout: Float, seconds after which to give up.

    Returns:
        Int, bytes: on a CPU the growth of the process since TensorFlow started, on a GPU the peak of its memory.

    Raises:
        MemoryError: Training ran out of memory.
        UserError: Training failed for another reason, or took too long.
    """
    job = json.dumps({"config": asdict(config), "batch_size": batch_size, "classes": classes, "task": task})
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
        raise UserError(f"{what} took longer than {timeout:g} seconds; set a batch size.") from None
    if done.returncode < 0 or any(word in done.stderr for word in ("ResourceExhausted", "MemoryError", "bad_alloc")):
        raise MemoryError(f"{what} ran out of memory.")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode or not lines:
        raise UserError(f"{what} cannot be measured: {lines[-1] if lines else 'no result'}")
    return int(lines[-1])


def _main(job: str) -> None:
    with suppress(OSError):  # if memory runs out, the kernel should kill this process, not its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    import numpy as np
    import tensorflow as tf

    from keras_effnet import training

    description = json.loads(job)
    batch_size, classes, task = (description[name] for name in ("batch_size", "classes", "task"))
    config = replace(
        TrainConfig.from_dict(description["config"]),
        batch_size=batch_size,
        epochs=1,
        warmup_epochs=0,
        progressive=None,  # the last and largest size is the network's own
        strategy="none",
    )
    size = config.spec.image_size
    tf.zeros(1).numpy()  # starts the device
    before = resident_bytes()
    model = training.build_model(config, classes, task=task)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3)).astype("float32")
    numbers = np.arange(batch_size) % classes
    if task == "detection":
        found = _targets(config, batch_size, classes)
        batch, val = (tf.data.Dataset.from_tensors((images, each)) for each in found)
        training.train(model, batch.repeat(max(_STEPS, config.accumulate)), val, config, task=task)
        return _report(before)
    labels = {
        "multilabel": np.eye(classes, dtype="float32")[numbers],
        "regression": np.eye(classes, dtype="float32")[numbers],
        "segmentation": np.broadcast_to(numbers[:, None, None], images.shape[:3]).astype("int32"),
    }
    batch = tf.data.Dataset.from_tensors((images, labels.get(task, numbers)))
    training.train(model, batch.repeat(max(_STEPS, config.accumulate)), batch, config, task=task)
    _report(before)


def _report(before: int) -> None:
    """Print the peak of this process."""
    import tensorflow as tf

    on_gpu = tf.config.list_physical_devices("GPU")
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else peak_resident_bytes() - before
    print(max(peak, 0))


def _targets(config: TrainConfig, batch_size: int, classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Labels of a training batch and of an evaluation batch with one box per image."""
    import numpy as np

    from keras_effnet.architecture.pyramid import expand_detector

    assert config.detector is not None
    labels = np.full((batch_size, expand_detector(config.detector).anchors), -1, "int32")
    labels[:, 0] = np.arange(batch_size) % classes
    train = {"labels": labels, "codes": np.zeros((*labels.shape, 4), "float32")}
    val = {
        "boxes": np.tile(np.array([0, 0, 16, 16], "float32"), (batch_size, 1, 1)),
        "classes": labels[:, :1],
        "crowd": np.zeros((batch_size, 1), bool),
        "scale": np.ones((batch_size, 2), "float32"),
    }
    return train, val


# ------------------------------------------------------------------ largest batch size


def _power_of_two(number: float) -> int:
    """Largest power of two up to a number; at least 1."""
    return 1 << max(0, int(number).bit_length() - 1)


def _within(measure: Callable[[int], int], batch_size: int) -> float:
    try:
        return measure(batch_size)
    except MemoryError:
        return float("inf")


def fitting_batch_size(measure: Callable[[int], int], available: int, *, largest: int, share: float = _SHARE) -> int:
    """Find the largest batch size, a power of two, whose training step fits into a share of the memory.

    Memory grows linearly with the batch size. Two small batches determine the line, the line predicts the size, and the
    predicted size is measured as well; it is halved until it fits.

    Args:
        measure: Function from a batch size to the peak in bytes; raises `MemoryError` if memory runs out.
        available: Int, bytes.
        largest: Int, upper limit of the batch size.
        share: Float in (0, 1], share of `available` that may be used.

    Returns:
        Int, a power of two.

    Raises:
        UserError: Not even a batch of one image fits.
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
                "use a smaller network or image_size."
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
    """Predict the training memory of a config on this machine, see `complexity.training_bytes`.

    Frozen parts are counted as if they were trained, and several devices as one.

    Args:
        config: `TrainConfig`; its batch size is not used.
        batch_size: Int, images per step.
        classes: Int.
    """
    from keras_effnet.training.by_task.networks import resolve_precision

    return training_bytes(
        config.detector or config.spec,
        batch_size,
        precision=resolve_precision(config.precision),
        # Accumulated gradients are stored in slots, too.
        optimizer_slots=(1 if config.optimizer == "sgd" else 2) + (config.accumulate > 1),
        ema=config.ema > 0,
        classes=classes,
        device="gpu" if trains_on_gpu() else "cpu",
    )


def automatic_batch_size(
    config: TrainConfig, classes: int, images: int, task: str = "classification"
) -> tuple[int, str]:
    """Choose a batch size: the largest power of two that fits into 80% of the free memory, with limits.

    It is at most 256 and leaves at least 16 steps per epoch. Steps are measured only if the predicted memory is more
    than half of what may be used.

    Args:
        config: `TrainConfig`; its batch size is not used.
        classes: Int.
        images: Int, number of training images.
        task: String, what the network is for.

    Returns:
        Pair of the batch size and a sentence that states the reason.

    Raises:
        UserError: Not even a batch of one image fits, or memory cannot be measured.
    """
    largest = _power_of_two(min(_LARGEST, images // _FEWEST_STEPS))
    bound = (
        "the largest that is considered"
        if largest == _LARGEST
        else f"the largest power of two with {_FEWEST_STEPS} steps per epoch of {images} images"
    )
    free, name = available_bytes()
    predicted = predicted_memory(config, largest, classes).total
    room = f"of {free / 1e9:.1f} GB free {name}"
    if predicted <= _SHARE / 2 * free and task != "segmentation":  # whose decoder is not counted
        return largest, f"Batch size {largest}: {bound}; predicted to use {predicted / 1e9:.1f} {room}."
    taken: dict[int, int] = {}

    def measure(size: int) -> int:
        taken[size] = measured_step_bytes(config, size, classes, task=task)
        return taken[size]

    size = fitting_batch_size(measure, free, largest=largest)
    reason = bound if size == largest else f"the largest power of two that fits into {_SHARE:.0%} of it"
    return size, f"Batch size {size}: {reason}; measured to use {taken[size] / 1e9:.1f} {room}."


if __name__ == "__main__":
    _main(sys.argv[1])
