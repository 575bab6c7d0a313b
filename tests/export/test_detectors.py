"""Detectors as `.tflite` files: two named outputs, proven by the boxes that file and model find."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from small_detector import small_detector

from keras_effnet import EfficientDet, export
from keras_effnet.architecture.detector_files import save_detector
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.precision import Truth
from keras_effnet.detection.suppression import detections
from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.detection import post_processing
from keras_effnet.export.detection.post_processing import add_post_processing
from keras_effnet.export.recipes import PRECISIONS
from keras_effnet.export.report import cells, columns
from keras_effnet.export.report_rows import ReportRow
from keras_effnet.export.tflite_file.metadata.detector_options import centered_anchors, read_anchors
from keras_effnet.inference import artifacts
from keras_effnet.inference.detecting import detect

pytestmark = pytest.mark.slow

CLIENT = Path(__file__).parents[1] / "support/clients/mediapipe_detector.py"
SIDE = 64
SPEC = small_detector("det-lite0", "lite0", classes=3, image_size=SIDE)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A small detector that finds something in every image: its predictions are not as cautious as untrained ones."""
    keras.utils.set_random_seed(0)
    made = EfficientDet(SPEC, input_shape=(SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    for head, spread, bias in (("class", 1.0, -1.0), ("box", 0.3, 0.0)):
        kernel, offset = next(
            layer for layer in made.layers if layer.name.startswith(f"{head}_predict") and len(layer.weights) == 2
        ).weights
        kernel.assign(rng.normal(0, spread, kernel.shape))
        offset.assign(np.full(offset.shape, bias))
    return made


@pytest.fixture(scope="module")
def images(smooth_images) -> np.ndarray:
    return smooth_images(40, SIDE).astype("float32")


class Files(dict[str, export.ExportResult]):
    """Results by precision, each made when it is first asked for."""

    def __init__(self, make: Callable[[str], export.ExportResult]):
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> export.ExportResult:
        self[name] = self._make(name)
        return self[name]


@pytest.fixture(scope="module")
def files(model, images, tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("detector")
    shared = {"calibration": images[:20], "verification": images[20:], "detector": SPEC, "labels": ["a", "b", "c"]}
    bytes_in = {"int8": {"input_type": "uint8", "method": "corrected"}}

    def make(name: str) -> export.ExportResult:
        options = shared | bytes_in.get(name, {})
        return export.export_tflite(model, folder / f"{name}.tflite", name, allow_degraded=True, **options)

    return Files(make)


def test_clients_call_boxes_and_scores_by_their_names(files, model, images):
    expected = model.predict(images[:1], verbose=0)
    for name, tolerance in (("none", 1e-4), ("int8", 0.2)):
        runner = Interpreter(str(files[name].path)).get_signature_runner("serving_default")
        found = runner(image=images[:1].astype("uint8" if name == "int8" else "float32"))
        for port in ("boxes", "scores"):
            assert found[port].dtype == np.float32
            np.testing.assert_allclose(found[port], expected[port], atol=tolerance)


def test_every_precision_is_proven_by_its_boxes(files):
    scores = {name: files[name].report.score for name in ("none", "float16", "dynamic", "weight_only", "int8")}
    assert scores["none"] > 0.99 and scores["float16"] > 0.97 and min(scores.values()) > 0.7
    report = files["int8"].report
    assert report.task == "detection" and report.samples == 20 and 0 <= report.figures["score drift"] < 0.1
    assert "of the detections the same on 20 images" in report.agreement
    assert (
        export.inspect(files["int8"].path).metadata.description
        == "Object detector of 3 classes for images of 64x64 pixels."
    )


def test_a_file_of_other_anchors_is_refused_and_its_boxes_disagree(files, model, images):
    with pytest.raises(UserError, match=r"anchors of .* are not known"):
        export.verify(files["none"].path, model, images[:2])
    with pytest.raises(UserError, match="it is another one's"):
        export.verify(files["none"].path, model, images[:2], detector=small_detector(levels=(3, 5)))


def test_true_boxes_give_the_average_precision_of_both(files, model, images):
    found = model.predict(images[20:], verbose=0)
    anchors = anchor_boxes(SPEC, SIDE)
    each = [
        detections(codes, scores, anchors, (SIDE, SIDE), score_threshold=0.3)
        for codes, scores in zip(found["boxes"], found["scores"], strict=True)
    ]
    truth = [Truth(image.boxes, image.labels) for image in each]  # the model is right about everything
    report = export.verify(files["none"].path, model, images[20:], labels=truth, detector=SPEC)
    assert report.figures["AP of Keras"] > 0.9
    assert report.figures["AP"] == pytest.approx(report.figures["AP of Keras"], abs=0.01)
    row = ReportRow("none", report)
    headers = columns([row])
    assert "same boxes" in headers and "AP of Keras" in headers and "top-1" not in headers
    assert {*headers} - {*columns([row], short=True)} == {"AP of Keras", "AP50 of Keras", "ops"}
    assert cells(row, headers)[headers.index("AP")].endswith("%")


def test_a_file_that_finds_other_boxes_is_refused(files):
    report = files["none"].report
    assert PRECISIONS["int8"].accepts(report)
    assert not PRECISIONS["int8"].accepts(replace(report, score=0.5, agreement_interval=(0.4, 0.6)))


def test_metadata_gives_clients_anchors_and_names(files):
    found = export.inspect(files["none"].path).metadata
    assert [found.output_name, *(name for name, _ in found.more_outputs)] == ["location", "score"]
    assert (found.boxes, found.labelled, found.names_values, found.labels) == (0, 1, False, ("a", "b", "c"))
    np.testing.assert_array_equal(read_anchors(found.detector_options), centered_anchors(SPEC, (SIDE, SIDE)))
    assert len(read_anchors(found.detector_options)) == len(anchor_boxes(SPEC, SIDE))


@pytest.mark.parametrize("precision", ["none", "int8"])
def test_post_processing_in_a_file_finds_what_numpy_finds(files, images, precision, tmp_path):
    path = add_post_processing(files[precision].path, tmp_path / "nms.tflite", SPEC, images[20:])
    image = images[20:21].astype("uint8" if precision == "int8" else "float32")
    raw, four = (
        Interpreter(str(each)).get_signature_runner("serving_default") for each in (files[precision].path, path)
    )
    outputs, found = raw(image=image), four(image=image)
    anchors = anchor_boxes(SPEC, SIDE)
    expected = detections(outputs["boxes"][0], outputs["scores"][0], anchors, (SIDE, SIDE), max_candidates=9999)
    count = int(found["num_detections"][0])
    assert count == len(expected) > 0
    np.testing.assert_allclose(found["detection_scores"][0, :count], expected.scores, atol=1e-5)
    metadata = export.inspect(path).metadata
    assert (metadata.boxes, metadata.labelled, metadata.names_values, metadata.labels) == (0, 1, True, ("a", "b", "c"))
    assert not metadata.detector_options
    with pytest.raises(UserError, match="ends in detections, for clients alone"):
        artifacts.load(path)


def test_post_processing_that_finds_other_boxes_is_not_written(files, images, tmp_path, monkeypatch):
    moved = centered_anchors(SPEC, (SIDE, SIDE)) + np.float32(0.05)
    monkeypatch.setattr(post_processing, "centered_anchors", lambda *args: moved)
    with pytest.raises(VerificationError, match="finds other boxes"):
        add_post_processing(files["none"].path, tmp_path / "nms.tflite", SPEC, images[20:])
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="Post-processing takes the outputs"):
        add_post_processing(files["none"].path, tmp_path / "nms.tflite", replace(SPEC, classes=4))


def test_mediapipe_finds_the_boxes_that_numpy_finds(files, images, tmp_path):
    python = os.environ.get("MEDIAPIPE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import mediapipe"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no MediaPipe; set MEDIAPIPE_PYTHON to an interpreter that has")
    Image.fromarray(images[20].astype("uint8")).save(tmp_path / "image.png")
    four = add_post_processing(files["none"].path, tmp_path / "nms.tflite", SPEC, images[20:22])
    reader = Interpreter(str(files["none"].path)).get_signature_runner("serving_default")(image=images[20:21])
    best = detections(reader["boxes"][0], reader["scores"][0], anchor_boxes(SPEC, SIDE), (SIDE, SIDE))
    for path in (files["none"].path, four):
        command = [python, str(CLIENT), str(path), str(tmp_path / "image.png")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        name, score, *box = json.loads(done.stdout.splitlines()[-1])[0][0]
        assert (name, score) == ("abc"[best.labels[0]], pytest.approx(best.scores[0], abs=1e-4))
        np.testing.assert_allclose(box, best.boxes[0], atol=1.5)  # MediaPipe rounds to whole pixels


def test_a_file_with_its_detector_json_detects_as_the_model_does(files, model, images, tmp_path):
    path = Path(shutil.copy(files["none"].path, tmp_path / "cells.tflite"))
    save_detector(SPEC, tmp_path / "detector.json")
    artifact = artifacts.load(path)
    assert (artifact.task, artifact.classes, artifact.class_names) == ("detection", 3, ("a", "b", "c"))
    outputs = model.predict(images[20:22], verbose=0)
    for found, codes, scores in zip(detect(artifact, images[20:22]), outputs["boxes"], outputs["scores"], strict=True):
        expected = detections(codes, scores, anchor_boxes(SPEC, SIDE), (SIDE, SIDE))
        np.testing.assert_allclose(found.boxes[:5], expected.boxes[:5], atol=0.01)
