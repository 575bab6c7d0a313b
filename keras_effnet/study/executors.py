"""Who runs the trials of a study: processes of this machine, or a Ray cluster. Both give futures; neither is ours.

Standard library and `errors`; Ray waits until it is asked for.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any

from keras_effnet.errors import UserError, first_line

Submit = Callable[..., Future]


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone: an orphan would train on beside the resumed study."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def processes(workers: int = 1) -> Iterator[Submit]:
    """Runs functions in processes of this machine, a fresh one each: what a trial takes of memory it gives back.

    Args:
        workers: Int, how many at a time.

    Yields:
        A function `(function, *args) -> concurrent.futures.Future`.
    """
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # TensorFlow does not survive a fork
        max_tasks_per_child=1,
        initializer=_end_with_parent,
    )
    try:
        yield pool.submit
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    """What Ray runs: of functions it takes those written in Python alone."""
    return function(*args)


@contextmanager
def ray_cluster(workers: int = 1, address: str = "local") -> Iterator[Submit]:
    """Runs functions on a Ray cluster, a fresh process each.

    Args:
        workers: Int, of a local cluster; a running one has its own number.
        address: String, `"local"` to start one, `"auto"` or `host:port` for one that runs. All of its machines must
            see the study's folder under the same path, and have this package installed.

    Yields:
        As `processes`.

    Raises:
        UserError: Ray is not installed, or there is no cluster.
    """
    if find_spec("ray") is None:
        raise UserError("A Ray cluster needs an extra: pip install 'keras-effnet[ray]'.")
    import ray

    shape = {"num_cpus": workers} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", include_dashboard=False, **shape)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"There is no Ray cluster at {address}: {first_line(error)}") from None
    try:
        task = ray.remote(max_calls=1, max_retries=0)(_call)
        yield lambda function, *args: task.remote(function, *args).future()
    finally:
        ray.shutdown()


def engine(workers: int = 1, cluster: str | None = None) -> AbstractContextManager[Submit]:
    """Processes of this machine, or the Ray cluster that is named."""
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}.")
    return processes(workers) if cluster is None else ray_cluster(workers, cluster)


def failure(error: Exception) -> str:
    """What a future raised, in one line: Ray wraps it."""
    return first_line(getattr(error, "cause", None) or error)
