"""`quickstart --task detection`, whole: it reaches what it promises, and its files lose nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image


@pytest.mark.soak
def test_the_quickstart_of_detection_finds_the_digits_of_unseen_scenes(tmp_path):
    command = [sys.executable, "-m", "keras_effnet", "quickstart", "--task", "detection", "--json"]
    found = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    assert found["test_ap50"] >= 0.85
    reports = {row["quantization"]: row["export"]["report"] for row in found["export"]["rows"]}
    assert list(reports) == ["none", "int8"]
    for report in reports.values():
        assert report["figures"]["AP50 of Keras"] == pytest.approx(found["test_ap50"], abs=0.005)
        assert report["lost"] <= 0.03
    run = tmp_path / "runs/quickstart/digits-scenes"
    for name in ("augmented.png", "detections.png", "precision_recall.png", "predictions.png"):
        with Image.open(run / name) as image:
            image.verify()
    assert (run / "detector.json").is_file() and (run / "export/detector.json").is_file()
