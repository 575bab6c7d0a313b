"""Running the client programs of `clients/` on files, each in the interpreter that has the client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = Path(__file__).parent / "clients"


@dataclass(frozen=True)
class ClientRun:
    """A client program and where it runs.

    Args:
        name: String, for the test's id.
        client: String, whose verdicts it puts to the test.
        program: String, file of `clients/`.
        module: String, what the interpreter must be able to import.
        variable: String, environment variable that names the interpreter; this one if it is empty.
        environment: Variables of the program.
        needs: String, environment variable without which the client cannot run.
        same_integers: Bool, whether it has the kernels of LiteRT on the CPU, so that integers are equal.
    """

    name: str
    client: str
    program: str
    module: str
    variable: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    same_integers: bool = True

    @property
    def python(self) -> str:
        """The interpreter."""
        return os.environ.get(self.variable, sys.executable)

    @property
    def missing(self) -> str:
        """Why the client cannot run here; empty if it can."""
        if self.needs and self.needs not in os.environ:
            return f"set {self.needs}, see CONTRIBUTING.md"
        if subprocess.run([self.python, "-c", f"import {self.module}"], capture_output=True, check=False).returncode:
            return f"{self.python} has no {self.module}; set {self.variable}, see CONTRIBUTING.md"
        return ""

    def answers(self, images: Path, files: Sequence[Path]) -> dict[str, dict]:
        """What the client says of each file, by file name; `{"error": ...}` where it fails or its process dies."""
        found: dict[str, dict] = {}
        waiting = list(files)
        while waiting:
            command = [self.python, str(PROGRAMS / self.program), str(images), *map(str, waiting)]
            environment = os.environ | self.environment
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            found |= {one["file"]: one for one in answers}
            if len(answers) < len(waiting):  # the file after the last answer killed the process
                killed = waiting[len(answers)]
                found[killed.name] = {"error": f"status {done.returncode}: {done.stderr[-500:]}"}
            waiting = waiting[len(answers) + 1 :]
        return found
