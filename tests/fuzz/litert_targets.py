"""What `info` and `benchmark` do with a `.tflite` file; no TensorFlow, so that the process starts quickly."""

from __future__ import annotations

from pathlib import Path

from keras_effnet.export import benchmark, inspect


def inspect_and_time(path: Path) -> None:
    """Inspect a file, which must succeed if it can be timed, and time it."""
    inspect(path)
    benchmark(path, runs=2, warmup=1)
