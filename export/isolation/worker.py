"""Worker process that runs one `.tflite` file, because LiteRT may abort on a file that this package has not made.

`isolated` starts it and talks to it over pipes. A message is a JSON object and bytes: a request names a method of
`Session` and its arguments, the answer has `"error"` or the result. An answer with `"wait"` is not the last; it says in
how many seconds the next will follow.

LiteRT and numpy; never TensorFlow, so that the process starts in a fraction of a second.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from keras_effnet.errors import UserError, first_line
from keras_effnet.export.tflite_file.interpreter import TFLiteModel, open_interpreter
from keras_effnet.system.machine import host_bytes, peak_resident_bytes, resident_bytes
from keras_effnet.system.timing import Timer

_REPORT = 1.0  # seconds between signs of progress while timing

_OWN_BYTES = 2**30  # stacks and heaps of threads, reserved but rarely used

_HEAD = struct.Struct("<IQ")
Message = tuple[dict[str, Any], bytes]


def send(stream: IO[bytes], header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Write a message."""
    text = json.dumps(header).encode()
    stream.write(_HEAD.pack(len(text), len(payload)) + text)
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """Read a message.

    Raises:
        EOFError: The other process has ended.
    """
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    size, length = _HEAD.unpack(head)
    text, payload = stream.read(size), stream.read(length)
    if len(payload) < length:
        raise EOFError
    return json.loads(text), payload


class Session:
    """The requests that a worker answers, for one file.

    Args:
        wait: Function that tells the other process how many seconds the next step may take.
    """

    def __init__(self, wait: Callable[[float], None]):
        self._wait = wait

    def load(self, payload: bytes, *, path: str, named: str, threads: int, seconds: float) -> dict[str, Any]:
        """Load a file from its path, or from the payload; return its input and outputs. A run may take `seconds`."""
        self._model, self._seconds = TFLiteModel(payload or path, threads, name=named), seconds
        return {"input": _described(self._model.input), "outputs": list(map(_described, self._model.outputs))}

    def run(self, payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Run one image."""
        batch = np.frombuffer(payload, self._model.input["dtype"]).reshape(self._model.input_shape)
        return {}, b"".join(output.tobytes() for output in self._model.run(batch))

    def start_timer(self, payload: bytes, *, runs: int, warmup: int, max_seconds: float) -> dict[str, Any]:
        """Warm up with a noise image."""
        image = np.random.default_rng(0).integers(0, 256, self._model.input_shape).astype("float32")
        batch, reported = self._model.quantized_input(image), time.monotonic()

        def run() -> None:
            nonlocal reported
            self._model.run(batch)
            if time.monotonic() - reported > _REPORT:
                self._wait(self._seconds)
                reported = time.monotonic()

        self._timer = Timer(run, runs=runs, warmup=warmup, max_seconds=max_seconds)
        return {}

    def burst(self, payload: bytes) -> dict[str, Any]:
        """Time a few runs; return whether there were any left."""
        return {"more": self._timer.burst()}

    def timing(self, payload: bytes) -> dict[str, Any]:
        """Statistics of the runs."""
        return asdict(self._timer.timing())

    def memory(self, payload: bytes, *, path: str, threads: int) -> dict[str, Any]:
        """Load a file and run it once; return by how many bytes the process grew."""
        import ai_edge_litert.interpreter  # noqa: F401  loaded here, so that its own memory is not counted

        before = resident_bytes()
        interpreter = open_interpreter(path, threads)
        for entry in interpreter.get_input_details():
            interpreter.tensor(entry["index"])()[:] = 1  # pages never written to are not resident
        interpreter.invoke()
        return {"bytes": max(peak_resident_bytes() - before, 0)}


def _described(port: dict[str, Any]) -> dict[str, Any]:
    """Description of an input or output as JSON."""
    return {
        "shape": [int(side) for side in port["shape"]],
        "shape_signature": [int(side) for side in port["shape_signature"]],
        "dtype": np.dtype(port["dtype"]).name,
        "quantization": [float(port["quantization"][0]), int(port["quantization"][1])],
    }


def _answer(session: Session, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    arguments = dict(header)
    try:
        result = getattr(session, arguments.pop("do"))(payload, **arguments)
    except UserError as error:
        return {"error": str(error), "kind": type(error).__name__}, b""
    except MemoryError:
        return {"error": "not enough memory", "kind": "MemoryError"}, b""
    except Exception as error:
        return {"error": first_line(error), "kind": type(error).__name__}, b""
    return result if isinstance(result, tuple) else (result, b"")


def _limit_resources() -> None:
    """Let allocations beyond the free memory fail, before the system ends other processes for them; no core files."""
    with suppress(ImportError, OSError, UserError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if sys.platform == "linux" and hard == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_DATA, (host_bytes()[0] + _OWN_BYTES, hard))


def _serve() -> None:
    """Answer requests until the other process ends, which closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the other one ends this one
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what C++ prints must not enter the pipe
    _limit_resources()
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                requests.put(receive(source))
        os._exit(0)  # also while LiteRT is running

    threading.Thread(target=listen, daemon=True).start()
    session = Session(lambda seconds: send(sink, {"wait": seconds}))
    while True:
        send(sink, *_answer(session, *requests.get()))


if __name__ == "__main__":
    _serve()
