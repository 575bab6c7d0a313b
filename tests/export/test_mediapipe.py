"""MediaPipe opens the exported files as they are, classifies images, and names what it finds.

MediaPipe runs in an interpreter of its own, which `MEDIAPIPE_PYTHON` names: it needs absl-py 2, and
tensorflow-model-optimization absl-py 1.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_effnet.errors import UserError
from keras_effnet.export.candidate_trial import try_precision
from keras_effnet.export.description import About
from keras_effnet.export.recipes import Settings
from keras_effnet.export.tflite import prepare_inputs
from keras_effnet.imagenet import imagenet_classes, readable
from keras_effnet.inference import artifacts

CLIENT = Path(__file__).parents[1] / "support/clients/mediapipe_metadata.py"
PRECISIONS = ("none", "float16", "dynamic", "int8", "mixed")
IMAGES = 40

pytestmark = [pytest.mark.slow, pytest.mark.images]


@pytest.fixture(scope="module")
def mediapipe() -> str:
    """An interpreter that has MediaPipe."""
    python = os.environ.get("MEDIAPIPE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import mediapipe"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no MediaPipe; set MEDIAPIPE_PYTHON to an interpreter that has")
    return python


@pytest.fixture(scope="module")
def sample(images_root) -> list[tuple[str, int]]:
    """The first 40 images of the sample with the index of their class."""
    folder = images_root / "imagenet-sample-300"
    with (folder / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    return [(str(folder / row["file"]), int(row["index"])) for row in rows[:IMAGES]]


@pytest.fixture(scope="module")
def files(mediapipe, images_root, tmp_path_factory) -> dict[str, Path]:
    """Lite0 with ImageNet weights at each precision."""
    try:
        artifact = artifacts.load("lite0")
    except UserError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("lite0")
    source, reference = prepare_inputs(
        artifact.model, str(images_root / "imagenet-sample-300"), None, artifact.image_spec, 60, 0
    )
    about = About(license="Apache-2.0").completed("lite0", 1000, artifact.class_names)
    made = {}
    for precision in PRECISIONS:
        made[precision] = folder / f"lite0_{precision}.tflite"
        choices = Settings(float_blocks=("stem", "block1a")) if precision == "mixed" else Settings()
        trial = try_precision(source, reference, precision, choices, about=about)
        made[precision].write_bytes(trial.candidate.content)
    return made


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mediapipe_classifies_with_names(mediapipe, files, sample, precision):
    command = [mediapipe, str(CLIENT), str(files[precision]), *(path for path, _ in sample)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["described"] == {
        "name": "lite0",
        "license": "Apache-2.0",
        "parser": "1.0.0",
        "rgb": True,
        "normalization": [0.0, 1.0],
        "range": [0.0, 255.0],
        "threshold": 0.0,
        "labels": ["labels.txt", True],
    }
    names = readable(wnid for wnid, _ in imagenet_classes())
    assert all(name == names[index] for index, name in found["answers"])
    right = sum(index == truth for (index, _), (_, truth) in zip(found["answers"], sample, strict=True))
    # 34 at each precision: these 40 are no exception, as 253 of all 300 are right in float32, 33.7 of 40 on average.
    # MediaPipe resizes images as a whole; evaluations crop them.
    assert right >= 33
