"""`keras-effnet launch`: data-parallel processes of one command, on this host or one process per host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from keras_effnet.cli.parameter_types import Whole
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.files import why_no_file
from keras_effnet.training.processes import ADDRESSES, PROCESS_ID, PROCESSES

_POLL, _PATIENCE = 0.1, 10  # seconds between polls, and from SIGTERM to SIGKILL


@click.command("launch")
@click.option("--processes", type=Whole(1, 1024), default=2, show_default=True, help="Processes over all hosts.")
@click.option("--coordinator", help="HOST:PORT of process 0, reachable from all hosts; by default a free local port.")
@click.option("--process-id", type=Whole(0), help="Start only this process; the others run on other hosts.")
@click.argument("arguments", nargs=-1, required=True)
def command(processes, coordinator, process_id, arguments) -> None:
    """Run ARGUMENTS, a command of keras-effnet or a script.py, in several processes on Keras' JAX backend.

    \b
    keras-effnet launch --processes 2 -- train digits --strategy data-parallel

    On several hosts, run it on each one with its own process id:

    \b
    keras-effnet launch --processes 4 --coordinator 10.0.0.1:8476 --process-id 2 -- train ...
    """
    if process_id is not None and process_id >= processes:
        raise UserError(f"--process-id counts from 0: with {processes} processes at most {processes - 1}.")
    if (process_id is None) != (coordinator is None):
        raise UserError("Several hosts need both --coordinator HOST:PORT and --process-id; one host needs neither.")
    if coordinator is not None and not _is_address(coordinator):
        raise UserError(f"--coordinator must be HOST:PORT, got {coordinator!r}.")
    _check_runnable(arguments[0])
    numbers = range(processes) if process_id is None else [process_id]
    shared = {"KERAS_BACKEND": "jax", "PYTHONUNBUFFERED": "1", PROCESSES: str(processes)}
    shared[ADDRESSES] = coordinator or f"127.0.0.1:{_free_port()}"
    status = _run(arguments, {number: shared | {PROCESS_ID: str(number)} for number in numbers})
    if status:
        raise click.exceptions.Exit(status)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def _check_runnable(first: str) -> None:
    """Refuse what each process would fail on."""
    if first.endswith(".py"):
        if not Path(first).is_file():
            raise UserError(f"Script {first} {why_no_file(first)}.")
    elif not first.startswith("-"):
        from keras_effnet.cli.app import COMMANDS  # which imports the commands

        one_of("command", first, COMMANDS)
        if find_spec("jax") is None:
            raise UserError("Several processes need Keras' JAX backend: pip install 'keras-effnet[jax]'.")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(arguments: Sequence[str], environments: dict[int, dict[str, str]]) -> int:
    """Run one process per environment to completion; return 0, or the status of the first that failed."""
    script = arguments[0].endswith(".py")
    started = [sys.executable, *([] if script else ["-m", "keras_effnet"]), *arguments]
    running: dict[int, subprocess.Popen[str]] = {}
    echoes = []
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
            failed = next(((number, status) for number, status in statuses.items() if status), None)
            if failed is not None:
                number, status = failed
                status = status if status > 0 else 128 - status  # as in a shell
                click.echo(f"Process {number} exited with status {status}; terminating the others.", err=True)
                return status
            if None not in statuses.values():
                return 0
            time.sleep(_POLL)
    finally:  # without one of them the others would wait forever
        _end(running.values())
        for echo in echoes:
            echo.join(_PATIENCE)


def _echo(number: int, process: subprocess.Popen[str]) -> None:
    for line in process.stdout or ():
        click.echo(f"[{number}] {line}", nl=False)


def _end(processes: Iterable[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.terminate()  # no effect on a finished process
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
