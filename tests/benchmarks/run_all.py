"""Run the benchmark scripts one after another; one JSON file and one Markdown page of what they print.

    python tests/benchmarks/run_all.py [SCRIPT ...] [--quick] [--data FOLDER] --json FILE --markdown FILE

`--data` is the folder of `imagenet-sample-300` and `tiny-imagenet-10`, without which the scripts that read images are
left out, as is `gpu.py` where there is no GPU. `--quick` gives some scripts less to do, and leaves out those that take
many minutes nevertheless. The JSON has the processor, versions and commit, and for each script its command, CPU and
wall seconds, output, and the rows of its tables as dicts; a single script writes the same with `--json FILE`. A script
that fails is reported with its last line and does not stop the others; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recording import FOLDER, entry, machine

from keras_effnet.system.documents import json_text
from keras_effnet.system.files import write_text

IMAGENET, TINY = "imagenet-sample-300", "tiny-imagenet-10"


@dataclass(frozen=True)
class Script:
    """A script with its arguments, in which `{data}` stands for the folder of images, and a program that it needs.

    `quick` are the arguments with which it takes a minute or so, None if it always takes longer.
    """

    name: str
    arguments: tuple[str, ...] = ()
    program: str = ""
    quick: tuple[str, ...] | None = None

    def can_run(self, data: Path | None) -> bool:
        """Whether its images and its program are there."""
        reads = any("{data}" in each for each in self.arguments)
        return (data is not None or not reads) and (not self.program or shutil.which(self.program) is not None)

    def command(self, data: Path | None) -> list[str]:
        """Arguments after the interpreter."""
        return [str(FOLDER / f"{self.name}.py"), *(each.format(data=data) for each in self.arguments)]


SCRIPTS = (
    Script("build", ("b0",), quick=("b0",)),
    Script("train_step", quick=("--rounds", "2", "64:64")),
    Script("lowering", ("b0", "--policy", "mixed_bfloat16")),
    Script("gpu", program="nvidia-smi"),
    Script("growth", quick=("network",)),
    Script("many_files"),
    Script("detection_targets_and_losses", quick=()),
    Script("export", ("default",), quick=("cost", "lite0")),
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


def run(script: Script, data: Path | None) -> dict[str, Any]:
    """What a script printed and took."""
    command = script.command(data)
    cpu, wall = sum(os.times()[2:4]), time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    shown = " ".join(["python", f"tests/benchmarks/{script.name}.py", *script.arguments]).replace("{data}", "DATA")
    errors = done.stderr.strip().splitlines()
    error = (errors[-1] if errors else f"exit code {done.returncode}") if done.returncode else None
    spent = sum(os.times()[2:4]) - cpu, time.perf_counter() - wall
    return entry(script.name, shown, *spent, done.stdout, error)


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
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    options = parser.parse_args()
    if unknown := set(options.names) - {each.name for each in SCRIPTS}:
        sys.exit(f"No such script: {', '.join(sorted(unknown))}. Known: {', '.join(each.name for each in SCRIPTS)}.")
    facts = machine()
    chosen = SCRIPTS
    if options.quick:
        chosen = tuple(replace(each, arguments=each.quick) for each in SCRIPTS if each.quick is not None)
    for script in chosen:
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
