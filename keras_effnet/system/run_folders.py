"""Run folders. Pure Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.system.files import write_text
from keras_effnet.system.machine import environment

_ENVIRONMENT = "env.json"


def new_run(command: str, name: str, root: str | Path = "runs") -> Path:
    """Create the run folder `root/command/name`, or `name-2`, `name-3`, ... if it exists.

    Raises:
        UserError: The folder cannot be created.
    """
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
        raise UserError(f"Cannot write run folder {parent}: {error.strerror}. Choose another with --out.") from None
    write_environment(folder)
    return folder


@contextmanager
def kept_if_used(folder: Path) -> Iterator[None]:
    """Remove a run folder if the block fails before it wrote anything of its own."""
    try:
        yield
    except BaseException:
        if [path.name for path in folder.glob("*")] == [_ENVIRONMENT]:
            shutil.rmtree(folder)
        raise


def write_environment(folder: Path) -> None:
    """Write `env.json`: versions and processor that the results in the folder depend on."""
    write_text(folder / _ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")
