"""Detectors as `.tflite` files: two named outputs, proven by the boxes that file and model find."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from small_detector import small_detector

from keras_effnet import EfficientDet, export
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.precision import Truth
from keras_effnet.detection.suppression import detections
from keras_effnet.errors import UserError
from keras_effnet.export.recipes import PRECISIONS
from keras_effnet.export.report import ReportRow, cells, columns

pytestmark = pytest.mark.slow

SIDE = 64
SPEC = small_detector("det-lite0", "lite0", classes=3, image_size=SIDE)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A small detector that finds something in every image: its predictions are not as cautious as untrained ones."""
    keras.utils.set_random_seed(0)
    made = EfficientDet(SPEC, input_shape=(SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    for head, spread, bias in (("class", 3.0, -1.0), ("box", 0.3, 0.0)):
        kernel, offset = next(
            layer for layer in made.layers if layer.name.startswith(f"{head}_predict") and len(layer.weights) == 2
        ).weights
        kernel.assign(rng.normal(0, spread, kernel.shape))
        offset.assign(np.full(offset.shape, bias))
    return made


@pytest.fixture(scope="module")
def images(smooth_images) -> np.ndarray:
    return smooth_images(40, SIDE).astype("float32")


@pytest.fixture(scope="module")
def files(model, images, tmp_path_factory):
    """Results by precision."""
    folder = tmp_path_factory.mktemp("detector")
    shared = {"calibration": images[:20], "verification": images[20:], "detector": SPEC, "labels": ["a", "b", "c"]}
    return {
        name: export.export_tflite(model, folder / f"{name}.tflite", name, **shared, **options)
        for name, options in {
            "none": {},
            "float16": {},
            "dynamic": {"allow_degraded": True},
            "weight_only": {"allow_degraded": True},
            "int8": {"allow_degraded": True, "input_type": "uint8", "method": "corrected"},
        }.items()
    }


def test_clients_call_boxes_and_scores_by_their_names(files, model, images):
    expected = model.predict(images[:1], verbose=0)
    for name, tolerance in (("none", 1e-4), ("int8", 0.2)):
        runner = Interpreter(str(files[name].path)).get_signature_runner("serving_default")
        found = runner(image=images[:1].astype("uint8" if name == "int8" else "float32"))
        for port in ("boxes", "scores"):
            assert found[port].dtype == np.float32
            np.testing.assert_allclose(found[port], expected[port], atol=tolerance)


def test_every_precision_is_proven_by_its_boxes(files):
    scores = {name: each.report.score for name, each in files.items()}
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
    assert cells(row, headers)[headers.index("AP")].endswith("%")


def test_a_file_that_finds_other_boxes_is_refused(files):
    report = files["none"].report
    assert PRECISIONS["int8"].accepts(report)
    assert not PRECISIONS["int8"].accepts(replace(report, score=0.5, agreement_interval=(0.4, 0.6)))
