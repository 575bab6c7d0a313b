"""Free memory of the device that trains. TensorFlow is imported when needed."""

from __future__ import annotations

import os
import subprocess

from keras_effnet.errors import UserError
from keras_effnet.system.machine import host_bytes


def _gpus() -> list[int]:
    """Free bytes of each visible NVIDIA GPU by its driver; TensorFlow would allocate the memory it reports on."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        query.append(f"--id={visible.split(',')[0]}")
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
        return [int(line) * 2**20 for line in done.stdout.split("\n") if line.strip()]
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
