"""`keras-effnet export` killed at random moments: no half result under a final name, and the next run works."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from keras_effnet.export.tflite_file.inspection import inspect

COMMAND = ("export", "toy.keras", "--calibration", "photos", "--quantize", "none,int8", "--min-agreement", "0")


def start(folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "keras_effnet", *COMMAND, "--out", "files", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **silent)


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*") if not path.name.startswith(".")}


@pytest.fixture
def workplace(toy_model, smooth_images, tmp_path) -> Path:
    """A folder with a network and images to export it with."""
    toy_model(size=32).save(tmp_path / "toy.keras")
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(smooth_images(44, 32)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    "kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.soak)], ids=["slice", "all"]
)
def test_a_killed_export_leaves_no_half_result_and_the_next_one_works(workplace, kills):
    started = time.perf_counter()
    assert start(workplace).wait() == 0
    whole = time.perf_counter() - started
    complete = visible(workplace / "files")

    moments = random.Random(kills)
    for _ in range(kills):
        process = start(workplace, "--overwrite")
        try:
            process.wait(moments.uniform(0.3, 1.0) * whole)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert visible(workplace / "files") == complete
        record = json.loads((workplace / "files/report.json").read_text())
        for row in record["rows"]:
            path = workplace / "files" / Path(row["export"]["path"]).name
            assert inspect(path).size_bytes == row["export"]["size_bytes"]
    assert start(workplace, "--overwrite").wait() == 0
    assert visible(workplace / "files") == complete


@pytest.mark.slow
def test_an_export_killed_in_a_new_folder_leaves_nothing_visible(workplace):
    process = start(workplace)
    while process.poll() is None and not list((workplace / "files").glob(".new-*/*.tflite")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert visible(workplace / "files") == set()
    assert start(workplace).wait() == 0
    assert not list((workplace / "files").glob(".new-*"))
    assert {"toy_none.tflite", "toy_int8.tflite", "report.json"} <= visible(workplace / "files")
