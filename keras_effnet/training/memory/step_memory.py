"""Memory of a training step, measured in a subprocess.

Measured in this process, the figure would include what TensorFlow has allocated before, and a step that runs out of
memory would end the training. Run as a module, this file is the subprocess. TensorFlow is imported when needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.system.machine import peak_resident_bytes, resident_bytes

_LIMIT = 900.0  # seconds for one measurement; tracing B7 at 600 pixels takes minutes
_STEPS = 2  # the first creates the optimizer's slots, the second runs with everything allocated


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


if __name__ == "__main__":
    _main(sys.argv[1])
