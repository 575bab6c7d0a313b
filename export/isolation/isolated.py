"""Running a `.tflite` file in a worker process, which may crash or hang without harm to this one.

LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.isolation.examination import PATIENCE, examine
from keras_effnet.export.isolation.worker import Message, receive, send
from keras_effnet.export.tflite_file.graph import name_of
from keras_effnet.export.tflite_file.interpreter import CannotRunError, ImageModel
from keras_effnet.system.timing import Timing

_COMMAND = (sys.executable, "-P", "-m", "keras_effnet.export.isolation.worker")
_PIPE_BYTES = 1 << 20  # on Linux; an image in one piece
_STEP = 0.1  # seconds between looks at the clock


class NoProgressError(CannotRunError):
    """A worker made no progress for too long."""


class Worker:
    """A process that runs one file, see `worker`. It ends with this object and with this process.

    Args:
        name: String, the file's name in messages.
        timeout: Float, seconds after which the process is ended in any case.
    """

    def __init__(self, name: str, timeout: float = float("inf")):
        self._name, self._started, self._timeout = name, time.monotonic(), timeout
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            pipesize=_PIPE_BYTES,
        )
        assert self._process.stdin and self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._watch = _Watch(self._process)
        streams = (self._requests, self._answers, self._log)
        self._close = weakref.finalize(self, _end, self._process, self._watch, streams)

    def ask(
        self, do: str, payload: bytes | memoryview = b"", *, within: float | None = None, **arguments: Any
    ) -> Message:
        """Send a request and return its answer, which must arrive within some seconds, by default `PATIENCE`.

        Raises:
            UserError: The worker refuses the file, cannot run it, or died.
        """
        self.send(do, payload, **arguments)
        self.expect(PATIENCE if within is None else within)
        return self.receive()

    def send(self, do: str, payload: bytes | memoryview = b"", **arguments: Any) -> None:
        """Send a request."""
        try:
            self._wait(PATIENCE)
            send(self._requests, {"do": do} | arguments, payload)
        except (OSError, ValueError):
            raise self._death() from None
        except BaseException:  # also KeyboardInterrupt: the next message would begin in the middle of this one
            self._close()
            raise

    def receive(self) -> Message:
        """Receive the answer to the oldest request without one.

        Raises:
            UserError: As `ask`.
        """
        try:
            while "wait" in (answer := receive(self._answers))[0]:
                self._wait(answer[0]["wait"])
            self._watch.deadline = float("inf")
        except (EOFError, OSError, ValueError):
            raise self._death() from None
        except BaseException:
            self._close()
            raise
        header, payload = answer
        if "error" in header:
            self._close()
            raise self._refusal(header["kind"], header["error"])
        return header, payload

    def expect(self, seconds: float) -> None:
        """Set the time within which the next answer must arrive."""
        self._wait(seconds)

    def close(self) -> None:
        """End the process."""
        self._close()

    def _wait(self, seconds: float) -> None:
        self._watch.seconds = seconds
        self._watch.deadline = min(time.monotonic() + seconds, self._started + self._timeout)

    def _refusal(self, kind: str, message: str) -> UserError:
        if kind == "UserError":
            return UserError(message)
        if kind == "CannotRunError":
            return CannotRunError(message)
        return CannotRunError(f"{self._name} cannot be run by LiteRT: {message}")

    def _death(self) -> UserError:
        """Error that says how the process ended."""
        if not self._close.alive:
            return CannotRunError(f"{self._name} was closed; load it again.")
        self._watch.expired.wait(2 * _STEP if time.monotonic() > self._watch.deadline else 0)
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:  # it closed its pipe
            status = 0
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        waited = min(self._watch.seconds, self._timeout)
        expired = self._watch.expired.is_set()
        self._close()
        if expired:
            return NoProgressError(
                f"{self._name} gave no result in {waited:.3g} seconds: it is damaged, or too large for this machine."
            )
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        if how == "SIGKILL" or "bad_alloc" in log:
            return CannotRunError(f"LiteRT was killed while it ran {self._name} ({how}): probably out of memory.")
        if status > 0 and "Traceback" in log:
            return CannotRunError(f"The process that runs {self._name} failed: {log.strip().splitlines()[-1]}")
        return CannotRunError(
            f"LiteRT crashed ({how}) on {self._name}: the file is damaged or needs operators that this runtime lacks."
        )


class _Watch:
    """Kills a process at a deadline, so that reading from it and writing to it end."""

    def __init__(self, process: subprocess.Popen):
        self.deadline, self.seconds = float("inf"), 0.0
        self.expired, self.stopped = threading.Event(), threading.Event()
        threading.Thread(target=self._look, args=(process,), daemon=True).start()

    def _look(self, process: subprocess.Popen) -> None:
        while not self.stopped.wait(_STEP):
            if time.monotonic() > self.deadline:
                self.expired.set()
                process.kill()
                return


def _end(process: subprocess.Popen, watch: _Watch, streams: Iterable[IO]) -> None:
    watch.stopped.set()
    process.kill()
    process.wait()
    for stream in streams:
        with suppress(OSError):  # what was not written cannot be any more
            stream.close()


class IsolatedModel(ImageModel):
    """A `.tflite` file in a worker process: as `TFLiteModel`, for files that this process has not made.

    Args:
        source: Path of a file, or its bytes.
        threads: Int, number of interpreter threads.

    Raises:
        UserError: As `TFLiteModel`, and if LiteRT crashes on the file or makes no progress.

    Example:

    >>> IsolatedModel("model.tflite").predict(images).argmax(axis=1)
    """

    def __init__(self, source: str | Path | bytes, threads: int = 1):
        name, facts = name_of(source), examine(source)
        self._worker, self._seconds = Worker(name), facts.seconds
        content = source if isinstance(source, bytes) else b""
        found, _ = self._worker.ask(
            *("load", content),
            within=facts.loading,
            path=facts.path,
            named=name,
            threads=threads,
            seconds=facts.seconds,
        )
        ports = [port | {"dtype": np.dtype(port["dtype"]).type} for port in (found["input"], *found["outputs"])]
        super().__init__(name, ports[:1], ports[1:])

    def run(self, batch: np.ndarray) -> list[np.ndarray]:  # noqa: D102  as in the base class
        (outputs,) = self.run_each([batch])
        return outputs

    def run_each(self, batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Run images one after the other; each is sent while the one before it runs."""
        under_way = 0
        try:
            for batch in batches:
                self._worker.send("run", np.ascontiguousarray(batch).data.cast("B"))
                under_way += 1
                if under_way > 1:
                    yield self._result()
                    under_way -= 1
            if under_way:
                yield self._result()
        except BaseException:  # an answer may be left in the pipe
            self._worker.close()
            raise

    def _result(self) -> list[np.ndarray]:
        self._worker.expect(self._seconds)
        _, payload = self._worker.receive()
        found, start = [], 0
        for port, shape in zip(self.outputs, self.output_shapes, strict=True):
            found.append(np.frombuffer(payload, port["dtype"], prod(shape), start).reshape(shape))
            start += found[-1].nbytes
        return found

    def timer(self, *, runs: int, warmup: int, max_seconds: float) -> IsolatedTimer:
        """Warm up and return a timer of runs in the worker process; the arguments are those of `Timer`."""
        self._worker.ask("start_timer", within=self._seconds, runs=runs, warmup=warmup, max_seconds=max_seconds)
        return IsolatedTimer(self._worker, self._seconds)


class IsolatedTimer:
    """A `Timer` in a worker process: the time for messages is not measured."""

    def __init__(self, worker: Worker, seconds: float):
        self._worker, self._seconds = worker, seconds

    def burst(self) -> bool:
        """Time a few of the remaining runs; return whether there were any."""
        return self._worker.ask("burst", within=self._seconds)[0]["more"]

    def timing(self) -> Timing:
        """Statistics of the runs so far."""
        return Timing(**self._worker.ask("timing")[0])
