"""Executors for the trainings of a study: processes of this machine, or a Ray cluster.

Pure Python. Ray is loaded where it is used.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from keras_effnet.errors import UserError, first_line

Submit = Callable[..., Future]

MOST_WORKERS = 1024  # each is a process with a TensorFlow of its own

_BEGAN, _TOLD, _RETURNED, _FAILED = "began", "told", "returned", "failed"  # messages of a process


def _end_with_parent() -> None:
    """Exit when the parent process is gone: an orphan would keep training beside the resumed study."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def processes(workers: int = 1) -> Iterator[Submit]:
    """Run each function in a fresh process of this machine, so that all of its memory is freed afterwards.

    Args:
        workers: Int, number of parallel processes.

    Yields:
        A function `(function, *args, told=None) -> concurrent.futures.Future`. With `told`, `function` gets a keyword
        argument of this name, a function that calls `told` in this process.
    """
    running: set[BaseProcess] = set()
    pool = ThreadPoolExecutor(workers)
    try:
        yield lambda function, *args, told=None: pool.submit(_in_process, running, told, function, *args)
    except BaseException:
        for process in list(running):  # nobody would read their results
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_process(
    running: set[BaseProcess], told: Callable[..., None] | None, function: Callable[..., Any], *args: Any
) -> Any:
    """Call a function in a new process and return its result or raise its error.

    Processes and pipes alone: the semaphores of a `ProcessPoolExecutor` would outlive a study that is killed.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, told is not None, function, args))
    process.start()
    running.add(process)
    sender.close()
    kind, outcome = "", None
    try:
        kind, outcome = receiver.recv()
        while kind in (_BEGAN, _TOLD):
            if told and kind == _TOLD:
                told(*outcome)
            kind, outcome = receiver.recv()
    except EOFError:
        process.join()
        raise _ended(process.exitcode, began=bool(kind)) from None
    finally:
        receiver.close()
        process.join()
        running.discard(process)
    if kind == _FAILED:
        raise outcome
    return outcome


def _ended(status: int | None, began: bool) -> Exception:
    """The error for a process that ended without a result: it was killed, or its interpreter failed on starting."""
    if began or not status or status < 0:
        return BrokenProcessPool("a process was killed")
    return UserError(
        "A process of the study could not start; it printed why. It imports the script that started it, which must "
        'call this package below `if __name__ == "__main__":`.'
    )


def _serve(sender: Connection, tells: bool, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Send the result of a function, or its error, to the parent process, and before it what the function tells."""
    _end_with_parent()
    sender.send((_BEGAN, None))
    told = {"told": lambda *message: sender.send((_TOLD, message))} if tells else {}
    try:
        sender.send((_RETURNED, function(*args, **told)))
    except BaseException as error:
        sender.send((_FAILED, _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """The error itself, or its text if another process could not rebuild it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function; a Ray task must be written in Python, which `function` may not be."""
    return function(*args)


@contextmanager
def ray_cluster(workers: int = 1, address: str = "local") -> Iterator[Submit]:
    """Run each function in a fresh process of a Ray cluster.

    Args:
        workers: Int, number of workers of a local cluster; ignored for a running one.
        address: String, `"local"` to start a cluster, `"auto"` or `host:port` for a running one. All of its machines
            must have this package installed and see the study's folder under the same path.

    Yields:
        A function as `processes` yields.

    Raises:
        UserError: Ray is not installed, or there is no cluster at this address.
    """
    import ray

    cpus = workers if address == "local" else None  # a running cluster has its own
    try:
        ray.init(address, num_cpus=cpus, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"There is no Ray cluster at {address}: {first_line(error)}") from None
    try:
        task = ray.remote(max_calls=1, max_retries=0)(_call)
        yield lambda function, *args: task.remote(function, *args).future()
    finally:
        ray.shutdown()


def check_engine(workers: int, cluster: str | None) -> None:
    """Refuse an executor that cannot be, before anything is measured.

    Raises:
        UserError: `workers` is not in 1..`MOST_WORKERS`, or Ray is not installed.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise UserError(f"workers must be in 1..{MOST_WORKERS}, got {workers}.")
    if cluster is not None and find_spec("ray") is None:
        raise UserError("A Ray cluster needs Ray: pip install 'keras-effnet[ray]'.")


def engine(workers: int = 1, cluster: str | None = None) -> AbstractContextManager[Submit]:
    """Executor on this machine, or on a Ray cluster.

    Raises:
        UserError: See `check_engine` and `ray_cluster`.
    """
    check_engine(workers, cluster)
    return processes(workers) if cluster is None else ray_cluster(workers, cluster)


def failure(error: Exception) -> str:
    """Error of a future in one line."""
    return first_line(unwrapped(error))


def unwrapped(error: Exception) -> Exception:
    """The error that a training raised; Ray wraps it in one of its own."""
    return getattr(error, "cause", None) or error
