"""Run the benchmark scripts one after another; one JSON file and one Markdown page of what they print.

    python tests/benchmarks/run_all.py [SCRIPT ...] [--data FOLDER] --json FILE --markdown FILE

`--data` is the folder of `imagenet-sample-300` and `tiny-imagenet-10`, without which the scripts that read images are
left out, as is `gpu.py` where there is no GPU. The JSON has the processor, versions and commit,
and for each script its command, CPU and wall seconds, output, and the rows of its tables as dicts. A script that fails
is reported with its last line and does not stop the others; the exit code is then 1. Some scripts take many minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.system.documents import json_text
from keras_effnet.system.files import write_text
from keras_effnet.system.machine import environment

FOLDER = Path(__file__).resolve().parent
IMAGENET, TINY = "imagenet-sample-300", "tiny-imagenet-10"


@dataclass(frozen=True)
class Script:
    """A script with its arguments, in which `{data}` stands for the folder of images, and a program that it needs."""

    name: str
    arguments: tuple[str, ...] = ()
    program: str = ""

    def can_run(self, data: Path | None) -> bool:
        """Whether its images and its program are there."""
        reads = any("{data}" in each for each in self.arguments)
        return (data is not None or not reads) and (not self.program or shutil.which(self.program) is not None)

    def command(self, data: Path | None) -> list[str]:
        """Arguments after the interpreter."""
        return [str(FOLDER / f"{self.name}.py"), *(each.format(data=data) for each in self.arguments)]


SCRIPTS = (
    Script("build", ("b0",)),
    Script("train_step"),
    Script("lowering", ("b0", "--policy", "mixed_bfloat16")),
    Script("gpu", program="nvidia-smi"),
    Script("growth"),
    Script("many_files"),
    Script("detection_targets_and_losses"),
    Script("export", ("cost", "b0")),
    Script("equalized_export", (f"{{data}}/{IMAGENET}", "b0")),
    Script("data", (f"{{data}}/{IMAGENET}", "loaders")),
    Script("inference", (f"{{data}}/{IMAGENET}",)),
    Script("accuracy", (f"{{data}}/{IMAGENET}", "lite0")),
    Script("qat", (f"{{data}}/{IMAGENET}", "lite0")),
    Script("int8", (f"{{data}}/{IMAGENET}", "lite0")),
    Script("int8_swish", (f"{{data}}/{IMAGENET}", f"{{data}}/{TINY}", "--splits", "0")),
    Script("recipes", (f"{{data}}/{TINY}", "--minutes", "5")),
)
# Those of files that a training must make first; they are run by hand.
BY_HAND = ("mediapipe_detection",)


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


def run(script: Script, data: Path | None) -> dict[str, Any]:
    """What a script printed and took."""
    command = script.command(data)
    cpu, wall = sum(os.times()[2:4]), time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    shown = " ".join(["python", f"tests/benchmarks/{script.name}.py", *script.arguments]).replace("{data}", "DATA")
    errors = done.stderr.strip().splitlines()
    return {
        "script": script.name,
        "command": shown,
        "cpu_s": round(sum(os.times()[2:4]) - cpu, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "error": (errors[-1] if errors else f"exit code {done.returncode}") if done.returncode else None,
        "output": done.stdout.strip(),
        "tables": tables(done.stdout),
    }


def commit() -> str:
    """Hash of the checkout, with a plus if files differ from it; empty outside git."""
    found = subprocess.run(["git", "-C", FOLDER, "describe", "--always", "--dirty=+"], capture_output=True, text=True)
    return found.stdout.strip()


def markdown(facts: dict[str, Any]) -> str:
    """The page."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    parts = [f"# Benchmarks\n\n{facts['cpu']}, {facts['cores']} cores; {versions}; commit {facts['commit']}.\n"]
    for each in facts["scripts"]:
        parts.append(f"## {each['script']}\n\n`{each['command']}`, {each['cpu_s']:.0f} s of CPU\n")
        parts += [f"{text}\n" for text in (each["output"], each["error"] and f"Failed: {each['error']}") if text]
    return "\n".join(parts)


def main() -> None:
    """Run the scripts and write both files after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SCRIPT", default=[each.name for each in SCRIPTS])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    options = parser.parse_args()
    if unknown := set(options.names) - {each.name for each in SCRIPTS}:
        sys.exit(f"No such script: {', '.join(sorted(unknown))}. Known: {', '.join(each.name for each in SCRIPTS)}.")
    about = environment()
    facts = {
        "cpu": about.get("cpu"),
        "cores": os.cpu_count(),
        "versions": {"python": about.get("python")} | dict(about.get("packages", {})),
        "commit": commit(),
        "scripts": [],
    }
    for script in SCRIPTS:
        if script.name not in options.names or not script.can_run(options.data):
            continue
        found = run(script, options.data)
        facts["scripts"].append(found)
        print(f"{script.name}: {found['error'] or 'done'}, {found['cpu_s']:.0f} s of CPU", flush=True)
        write_text(options.json, json_text(facts))
        write_text(options.markdown, markdown(facts))
    sys.exit(any(each["error"] for each in facts["scripts"]))


if __name__ == "__main__":
    main()
