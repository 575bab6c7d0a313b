"""`study` and `search` killed at random moments: resumed, they end with the rows of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_network import TINY

from keras_effnet.study.results import RESULTS_JSONL
from keras_effnet.system import jsonl

KILLS = 10
SHARED = ("--baseline", TINY, "--image-size", "32", "--threads", "1", "--set", "deterministic=true")
COMMANDS = {
    "study": "--phi 0,1 --seeds 1 --epochs 3",
    "search": "--step 0.5 --tolerance 0.15 --by formula --reduction 2 --finalists 1 --seeds 2 --epochs 2",
}
MEASURED = {  # differs from run to run
    "training": {"train_seconds", "input_bound", "energy_joules", "peak_memory_mb"},
    "cost": {"step_ms", "step_iqr_ms", "predict_ms", "predict_iqr_ms", "tflite_ms", "tflite_iqr_ms"}
    | {"train_images_per_second", "predict_images_per_second"},
    "roofline": {"peaks", "kinds", "seconds"},
}


def start(*arguments: str, log: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "keras_effnet", *arguments]
    with log.open("a") as file:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=file, stderr=file)


def lasting(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its measurements."""
    kept = {key: value for key, value in row.items() if key not in MEASURED[row["kind"]]}
    curve = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in row.get("curve", ())]
    return kept | {"curve": curve}


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def complete(folder: Path, *arguments: str, log: Path) -> None:
    process = start(*arguments, log=log)
    assert process.wait() == 0, log.read_text()[-3000:]
    assert (folder / RESULTS_JSONL).exists()


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_killed_at_any_moment_ends_with_the_rows_of_an_undisturbed_run(command, tmp_path):
    log, parent = tmp_path / "log.txt", tmp_path / command
    new = (command, "digits", *SHARED, *COMMANDS[command].split(), "--out", str(tmp_path), "--name")
    started = time.monotonic()
    complete(parent / "undisturbed", *new, "undisturbed", log=log)
    whole = time.monotonic() - started
    expected = jsonl.read(parent / "undisturbed" / RESULTS_JSONL)
    moments, kills, tries = random.Random(0), 0, 0
    while kills < KILLS:
        tries += 1
        assert tries < 2 * KILLS, "most runs end before they can be killed"
        folder = parent / str(tries)
        process = start(*new, folder.name, log=log)
        try:
            process.wait(moments.uniform(0, whole))
            continue
        except subprocess.TimeoutExpired:
            # The command alone, as by a user; or with its training, as when the machine stops.
            (os.kill if kills % 2 else os.killpg)(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        before = jsonl.read(folder / RESULTS_JSONL)
        if (folder / "protocol.yaml").exists():
            complete(folder, command, "--resume", str(folder), log=log)
        else:  # nothing was begun
            assert before == []
            continue
        rows = jsonl.read(folder / RESULTS_JSONL)
        assert rows[: len(before)] == before
        assert [lasting(row) for row in rows] == [lasting(row) for row in expected]
        assert files_of(folder) == files_of(parent / "undisturbed")
