"""`keras-effnet launch`: one command in several processes that train together, on this host or one process a host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import click

from keras_effnet.errors import UserError
from keras_effnet.training.processes import ADDRESSES, PROCESS_ID, PROCESSES

_POLL, _PATIENCE = 0.1, 10  # seconds between looks at the processes, and until one that was asked to end is killed


@click.command("launch")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True, help="Processes of all hosts.")
@click.option("--coordinator", help="HOST:PORT of process 0, which all hosts reach; by default a free port here.")
@click.option("--process-id", type=click.IntRange(0), help="Start this process alone; the others on other hosts.")
@click.argument("arguments", nargs=-1, required=True)
def command(processes, coordinator, process_id, arguments) -> None:
    """Run ARGUMENTS, a command of keras-effnet or a script.py, in several processes on Keras' JAX backend.

    \b
    keras-effnet launch --processes 2 -- train digits --strategy data-parallel

    On several hosts, say it on each, with its own process id:

    \b
    keras-effnet launch --processes 4 --coordinator 10.0.0.1:8476 --process-id 2 -- train ...
    """
    if process_id is not None and process_id >= processes:
        raise UserError(f"--process-id counts from 0: with {processes} processes at most {processes - 1}.")
    if (process_id is None) != (coordinator is None):
        raise UserError("Several hosts need both --coordinator HOST:PORT and --process-id; one host needs neither.")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"--coordinator must be HOST:PORT, got {coordinator!r}.")
    numbers = range(processes) if process_id is None else [process_id]
    shared = {"KERAS_BACKEND": "jax", "PYTHONUNBUFFERED": "1", PROCESSES: str(processes)}
    shared[ADDRESSES] = coordinator or f"127.0.0.1:{_free_port()}"
    status = _run(arguments, {number: shared | {PROCESS_ID: str(number)} for number in numbers})
    if status:
        raise click.exceptions.Exit(status)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(arguments: Sequence[str], environments: dict[int, dict[str, str]]) -> int:
    """Runs one process for each environment to the end; returns 0, or the status of the first that failed."""
    script = arguments[0].endswith(".py")
    started = [sys.executable, *([] if script else ["-m", "keras_effnet"]), *arguments]
    running: dict[int, subprocess.Popen] = {}
    echoes = []
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        for number, environment in environments.items():
            running[number] = subprocess.Popen(
                started,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            echoes.append(threading.Thread(target=_echo, args=(number, running[number]), daemon=True))
            echoes[-1].start()
        while True:
            statuses = {number: process.poll() for number, process in running.items()}
            failed = next((number for number, status in statuses.items() if status), None)
            if failed is not None:
                status = statuses[failed] if statuses[failed] > 0 else 128 - statuses[failed]  # as a shell says it
                click.echo(f"Process {failed} ended with status {status}; the others end too.", err=True)
                return status
            if None not in statuses.values():
                return 0
            time.sleep(_POLL)
    finally:  # without one of them the others would wait for ever
        _end(running.values())
        signal.signal(signal.SIGTERM, before)
        for echo in echoes:
            echo.join(_PATIENCE)


def _leave(number, frame):
    """A scheduler's SIGTERM would leave the processes behind; as an exception it ends them first."""
    raise SystemExit(128 + number)


def _echo(number: int, process: subprocess.Popen) -> None:
    for line in process.stdout:
        click.echo(f"[{number}] {line}", nl=False)


def _end(processes) -> None:
    for process in processes:
        process.terminate()  # does nothing to one that has ended
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
