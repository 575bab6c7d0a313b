"""Run folders: creation, removal of unused ones, and locks. Pure Python."""

from __future__ import annotations

import errno
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from keras_effnet.errors import UserError
from keras_effnet.system.documents import json_text
from keras_effnet.system.files import WriteError, cannot_write, write_text
from keras_effnet.system.machine import environment

logger = logging.getLogger(__name__)

LOCK = ".lock"
_ENVIRONMENT = "env.json"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of file systems without locks
_HOLDER_LENGTH = 200  # characters of a lock file that a message may repeat


def check_name(name: str) -> None:
    """Refuse what is not a plain name of a folder or file: it would place results elsewhere.

    Raises:
        UserError: The name is empty, `.` or `..`, or contains a separator.
    """
    if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"}:
        raise UserError(f"The name must be a plain one, without a path, got {name!r}. Set the folder with --out.")


def new_run(command: str, name: str, root: str | Path = "runs") -> Path:
    """Create the run folder `root/command/name`, or `name-2`, `name-3`, ... if it exists.

    Raises:
        UserError: The name is none of a folder, or the folder cannot be created.
    """
    check_name(name)
    parent = Path(root) / command
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = parent / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                number += 1
    except OSError as error:
        raise cannot_write(f"run folder {parent}", error) from None
    try:
        write_environment(folder)
    except (OSError, WriteError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise cannot_write(f"to run folder {folder}", error) from None
    return folder


@contextmanager
def kept_if_used(folder: Path, checkpoint: str | None = None) -> Iterator[None]:
    """Remove a run folder if the block fails before it wrote anything of its own.

    Args:
        folder: Path of the run folder.
        checkpoint: String or None, file without which the files of a run that cannot be written are of no use.
    """
    try:
        yield
    except BaseException as error:
        unused = {path.name for path in folder.glob("*")} - {LOCK} == {_ENVIRONMENT}
        incomplete = isinstance(error, WriteError) and checkpoint and not (folder / checkpoint).exists()
        if unused or incomplete:
            shutil.rmtree(folder)
        raise


def write_environment(folder: Path) -> None:
    """Write `env.json`: versions and processor that the results in the folder depend on."""
    write_text(folder / _ENVIRONMENT, json_text(environment()) + "\n")


@contextmanager
def locked(folder: str | Path, *, wait: float = 0.0) -> Iterator[None]:
    """Create a folder if it is missing and lock it for this process; nested locks of one thread are one lock.

    The operating system holds the lock, in the file `.lock`, and releases it when the process ends, also by a kill or a
    crash, so no lock outlives its process. On a file system without locks a warning is logged instead.

    Args:
        folder: Path.
        wait: Float, seconds to wait for a process that holds the lock.

    Raises:
        UserError: Another process holds the lock, the message names it; or the folder cannot be written.
    """
    path = Path(folder) / LOCK
    lock = FileLock(path, is_singleton=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(f"{folder} is in use by {_holder(path)}. Wait until it ends, or stop it.") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise cannot_write(f"to {folder}", error) from None
        logger.warning("%s is on a file system without locks: run only one process there at a time.", folder)
        yield
        return
    try:
        if lock.lock_counter == 1:
            _name_holder(path)
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # while it is held: whoever opened it before creates another
                path.unlink()
        lock.release()


def _name_holder(path: Path) -> None:
    """Record in a lock file who holds it. Its content has no effect on the lock."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with suppress(OSError):  # on Windows a locked file cannot be written by another handle; a disk may be full
        path.write_text(f"process {os.getpid()} on {platform.node()} since {since}\n", encoding="utf-8")


def _holder(path: Path) -> str:
    """Who holds a lock, as far as its file tells."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(_HOLDER_LENGTH).strip()
    except OSError:
        line = ""
    return line if line.startswith("process ") and line.isprintable() else "another process"
