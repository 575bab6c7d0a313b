"""Examination of a `.tflite` file before a process is started to run it: damage, memory, the time that it may take.

Runs nothing; never TensorFlow.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.export.tflite_file.arena import plan
from keras_effnet.export.tflite_file.graph import Graph, name_of, read_graph
from keras_effnet.system.files import why_no_file
from keras_effnet.system.machine import host_bytes

PATIENCE = 20.0  # seconds without a sign of progress, at least
_LONGEST = 600.0
_SLOWEST_MACS = 2e8  # per second; reference kernels of int16 on a slow processor
_SLOWEST_BYTES = 1e7  # per second, from a slow disk


@dataclass(frozen=True)
class Examined:
    """Facts about a file that is not damaged.

    Args:
        path: String, absolute path of the file; empty for bytes.
        loading: Float, seconds in which it must be loaded.
        seconds: Float, seconds that a run may take: from its multiply-adds on a slow processor.
    """

    path: str
    loading: float
    seconds: float


def examine(source: str | Path | bytes, name: str | None = None) -> Examined:
    """Check a file before a worker is started for it. The file is mapped, not read.

    Raises:
        UserError: There is no such file, it is damaged, or its activations need more memory than is free.
    """
    name = name or name_of(source)
    if isinstance(source, bytes):
        path, size, graph = "", len(source), read_graph(source, name)
    elif not Path(source).is_file():
        raise UserError(f"{name} {why_no_file(source)}.")
    else:
        path, size = str(Path(source).resolve()), Path(source).stat().st_size
        try:
            with Path(path).open("rb") as file:  # an empty file cannot be mapped
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}.") from None
        graph = read_graph(mapped, name)
    _check_memory(graph, name)
    seconds = min(max(PATIENCE, graph.macs / _SLOWEST_MACS), _LONGEST)
    return Examined(path, seconds + size / _SLOWEST_BYTES, seconds)


def _check_memory(graph: Graph, name: str) -> None:
    needed = plan(graph).arena_bytes
    free = float("inf")
    with suppress(UserError):  # a system that does not report it
        free = host_bytes()[0]
    if needed > free:
        raise UserError(
            f"{name} needs {needed / 1e9:.1f} GB for its activations, but only {free / 1e9:.1f} GB are free."
        )
