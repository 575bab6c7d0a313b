"""Detectors as artifacts: both outputs, and the anchors that the file does not hold."""

import logging

import keras
import numpy as np
import pytest

import keras_effnet
from keras_effnet.architecture.detector_files import save_detector
from keras_effnet.errors import UserError
from keras_effnet.inference import artifacts
from tests.support.small_detector import small_detector

SPEC = small_detector(anchor_scale=2.5)


@pytest.fixture(scope="module")
def detector():
    return keras_effnet.EfficientDet(SPEC, classifier_activation=None)


@pytest.fixture
def file(detector, tmp_path):
    detector.save(tmp_path / "best.keras")
    return tmp_path / "best.keras"


def test_a_detector_gives_codes_and_scores_and_knows_its_anchors(detector, file):
    save_detector(SPEC, file.with_name("detector.json"))
    artifact = artifacts.load(file)
    images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype("float32")
    outputs, expected = artifact.predict(images), detector(images)  # without training=False, as users call it
    assert (artifact.task, artifact.classes, artifact.detector) == ("detection", 3, SPEC)
    np.testing.assert_allclose(outputs["boxes"], expected["boxes"], atol=1e-5)
    np.testing.assert_allclose(outputs["scores"], keras.ops.sigmoid(expected["logits"]), atol=1e-5)


def test_anchors_of_the_table_are_assumed_with_a_warning(file, caplog):
    with caplog.at_level(logging.WARNING):
        artifact = artifacts.load(file)
    assert artifact.detector.anchor_scale == 3.0
    assert "has no detector.json: the anchors of efficientdet-lite0 as published are assumed" in caplog.text


def test_a_description_of_another_network_is_refused(file):
    save_detector(small_detector(octaves=2), file.with_name("detector.json"))
    with pytest.raises(UserError, match="it belongs to another network"):
        artifacts.load(file)
