"""The quickstart's run, whole: minutes, so `.ci/run` hands over the one that it makes from the installed wheel.

`QUICKSTART_FOLDER` names the folder in which the command was run, with its output in `quickstart.log`; without the
variable the test runs the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from exports import PRECISIONS
from PIL import Image


@pytest.fixture
def folder(tmp_path) -> Path:
    if given := os.environ.get("QUICKSTART_FOLDER"):
        return Path(given)
    with (tmp_path / "quickstart.log").open("w") as log:
        subprocess.run([sys.executable, "-m", "keras_effnet", "quickstart"], cwd=tmp_path, stdout=log, check=True)
    return tmp_path


@pytest.mark.soak
def test_quickstart_goes_the_whole_way_and_reaches_what_it_promises(folder):
    printed = (folder / "quickstart.log").read_text().strip().splitlines()
    assert printed[-2].split()[:2] == ["Result:", "runs/quickstart/digits"]
    assert printed[-1].startswith("Next:   keras-effnet train FOLDER")
    run = folder / "runs/quickstart/digits"
    for name in ("curves.png", "confusion.png", "predictions.png", "export/precisions.png"):
        with Image.open(run / name) as image:
            image.verify()
    for name in ("args.yaml", "env.json", "results.csv", "labels.txt", "weights/best.keras", "export/report.md"):
        assert (run / name).is_file()
    report = (run / "export/report.json").read_text()
    rows = json.loads(report, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["rows"]
    assert [row["quantization"] for row in rows] == list(PRECISIONS)
    assert all(any(line.split()[:1] == [each] for line in printed) for each in PRECISIONS)
    reports = {row["quantization"]: row["export"]["report"] for row in rows}
    assert reports["none"]["accuracy_keras"] >= 0.97
    assert reports["int8"]["top1_agreement"] >= 0.97
    assert all(report["accuracy_tflite"] >= 0.96 for report in reports.values())
