"""Peak memory of a `.tflite` file on this machine, measured in a subprocess.

The calling process is unsuitable: TensorFlow dominates its memory, and freed memory is rarely returned to the system.
Run as a module, this file is the subprocess. It imports only the interpreter, whose own memory is not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.export.tflite_file.graph import content_of
from keras_effnet.export.tflite_file.interpreter import open_interpreter
from keras_effnet.system.machine import peak_resident_bytes, resident_bytes

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
    content = content_of(source)
    if isinstance(source, bytes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(content)
            return _measured("The model", path, threads, timeout)
    return _measured(str(source), Path(source), threads, timeout)


def _measured(name: str, path: Path, threads: int, timeout: float) -> float:
    command = [sys.executable, "-m", __name__, str(path.resolve()), str(threads)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} did not finish one run in {timeout:g} seconds; pass a larger timeout.") from None
    if done.returncode < 0:
        raise UserError(f"Running {name} was killed by signal {-done.returncode}: probably out of memory.")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode or not lines:
        raise UserError(
            f"The memory of {name} cannot be measured: {lines[-1] if lines else 'the process printed no result'}"
        )
    return float(lines[-1]) / 1e6


def _main(path: str, threads: int) -> None:
    import ai_edge_litert.interpreter  # noqa: F401  loaded here, so that its own memory is not counted

    before = resident_bytes()
    interpreter = open_interpreter(path, threads)
    for entry in interpreter.get_input_details():
        interpreter.tensor(entry["index"])()[:] = 1  # pages never written to are not resident
    interpreter.invoke()
    print(max(peak_resident_bytes() - before, 0))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
