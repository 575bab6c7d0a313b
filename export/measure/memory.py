"""Peak memory of a `.tflite` file on this machine, measured in a worker process.

The calling process is unsuitable: TensorFlow dominates its memory, and freed memory is rarely returned to the system.
LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.export.isolation.examination import examine
from keras_effnet.export.isolation.isolated import NoProgressError, Worker

_LIMIT = 600.0  # seconds; B7 at 600 pixels takes a few


def peak_memory(source: str | Path | bytes, threads: int = 1, *, timeout: float = _LIMIT) -> float:
    """Peak resident memory of loading a `.tflite` file and running it once.

    This includes the weights, memory-mapped as in an app, the copies that the XNNPACK delegate packs for its kernels,
    and the activations. It excludes the memory of the interpreter before it loads a file.

    Args:
        source: Path of the file, or its bytes.
        threads: Int, number of interpreter threads.
        timeout: Float, seconds after which to give up.

    Returns:
        Megabytes (10^6 bytes).

    Raises:
        UserError: The file cannot be run, the process was killed, or the system does not report memory.

    Example:

    >>> keras_effnet.export.peak_memory("model_int8.tflite")
    """
    if isinstance(source, bytes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(source)
            return _measured("The model", path, threads, timeout)
    return _measured(str(source), Path(source), threads, timeout)


def _measured(name: str, path: Path, threads: int, timeout: float) -> float:
    facts = examine(path, name)
    worker = Worker(name, timeout)
    try:
        grown, _ = worker.ask("memory", within=facts.loading + facts.seconds, path=facts.path, threads=threads)
    except NoProgressError:
        raise UserError(f"{name} did not finish one run in {timeout:g} seconds; pass a larger timeout.") from None
    finally:
        worker.close()
    return grown["bytes"] / 1e6
