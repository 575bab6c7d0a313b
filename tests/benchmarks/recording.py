"""Record of a benchmark run, the format of `--json FILE` of every script: machine, versions, commit, output, tables."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from keras_effnet.system.documents import json_text
from keras_effnet.system.files import write_text
from keras_effnet.system.machine import environment

FOLDER = Path(__file__).resolve().parent


def tables(text: str) -> list[list[dict[str, str]]]:
    """Markdown tables in a text, each a list of rows, each a dict of the column's title to the cell."""
    found: list[list[dict[str, str]]] = []
    titles: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            titles = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not titles:
            titles = cells
            found.append([])
        elif set(line) - set("|-: "):
            found[-1].append(dict(zip(titles, cells, strict=False)))
    return found


def commit() -> str:
    """Hash of the checkout, with a plus if files differ from it; empty outside git."""
    found = subprocess.run(["git", "-C", FOLDER, "describe", "--always", "--dirty=+"], capture_output=True, text=True)
    return found.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, versions and commit, with an empty list of `scripts`."""
    about = environment()
    return {
        "cpu": about.get("cpu"),
        "cores": os.cpu_count(),
        "versions": {"python": about.get("python")} | dict(about.get("packages", {})),
        "commit": commit(),
        "scripts": [],
    }


def entry(name: str, command: str, cpu_s: float, wall_s: float, output: str, error: str | None) -> dict[str, Any]:
    """A script among `scripts`."""
    return {
        "script": name,
        "command": command,
        "cpu_s": round(cpu_s, 1),
        "wall_s": round(wall_s, 1),
        "error": error,
        "output": output.strip(),
        "tables": tables(output),
    }


class _Tee(io.StringIO):
    """Keeps what it prints."""

    def __init__(self, shown: TextIO):
        super().__init__()
        self._shown = shown

    def write(self, text: str) -> int:
        self._shown.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._shown.flush()


@contextmanager
def recorded() -> Iterator[None]:
    """Take `--json FILE` out of the arguments, and write what the block prints to that file; nothing without it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", type=Path)
    options, sys.argv[1:] = parser.parse_known_args(sys.argv[1:])
    if options.json is None:
        yield
        return
    script, error = Path(sys.argv[0]), None
    cpu, wall = sum(os.times()[:4]), time.perf_counter()
    with redirect_stdout(_Tee(sys.stdout)) as kept:
        try:
            yield
        except SystemExit as stop:
            error = str(stop.code) if stop.code else None
            raise
        finally:
            command = " ".join(["python", f"tests/benchmarks/{script.name}", *sys.argv[1:]])
            spent = sum(os.times()[:4]) - cpu, time.perf_counter() - wall
            facts = machine() | {"scripts": [entry(script.stem, command, *spent, kept.getvalue(), error)]}
            write_text(options.json, json_text(facts))
