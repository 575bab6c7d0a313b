"""Verification of files that were run, against figures worked out by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.datasets.splits import Split
from keras_effnet.errors import UserError
from keras_effnet.evaluation.agreement import centred_logits
from keras_effnet.export import export_savedmodel, export_tflite, verify
from keras_effnet.export.calibration import load_images
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.verification import Reference, compare
from keras_effnet.preprocessing import ImageSpec


def test_figures_of_logits_are_as_worked_out_by_hand():
    expected = np.array([[3.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 9.0]])
    got = np.array([[3.0, 1.0, 3.3], [0.6, 6.0, 0.0], [900.0, 0.0, 0.0]])
    report = compare(expected, got, labels=np.array([0, 1, 1]))
    # Centred, the logits of the first image are (2, -1, -1), of power 6, and the difference (0, 1, 3.3) has power
    # 1 + 10.89 - 4.3^2 / 3; those of the second have 24 and 0.36 - 0.6^2 / 3. The third is far worse: the median is
    # the first.
    first, second = 10 * np.log10(6 / (11.89 - 4.3**2 / 3)), 10 * np.log10(24 / 0.24)
    assert report.sqnr_db == pytest.approx(first)
    assert compare(expected[:2], got[:2]).sqnr_db == pytest.approx((first + second) / 2)
    assert report.max_abs_diff == pytest.approx(900)
    assert report.top1_agreement == pytest.approx(1 / 3)
    assert (report.accuracy_keras, report.accuracy_tflite) == pytest.approx((2 / 3, 1 / 3))
    assert report.samples == 3


def test_an_agreement_carries_its_count_and_interval():
    got = np.eye(28)
    got[0] = got[1]
    report = compare(np.eye(28), got)
    assert (report.agreeing, report.samples) == (27, 28)
    assert report.agreement_interval == pytest.approx((0.8228780225664668, 0.9936674801509623))  # scipy 1.17
    assert report.agreement == "the same class on 27 of 28 images (96.4%, 95% interval 82.3% to 99.4%)"


def test_probabilities_are_compared_by_their_logarithms():
    logits = np.array([[2.0, 1.0, -1.0], [0.5, -0.5, 3.0]])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(centred_logits(probabilities), logits - logits.mean(axis=1, keepdims=True), atol=1e-12)


def test_a_constant_added_to_all_logits_of_an_image_is_no_error():
    logits = np.random.default_rng(0).normal(size=(20, 5))
    assert compare(logits, logits + 7).sqnr_db > 200


def test_noise_of_a_tenth_of_the_signal_is_20_db():
    rng = np.random.default_rng(0)
    signal, error = (rng.normal(size=(4000, 10)) for _ in range(2))
    assert compare(signal, signal + 0.1 * error).sqnr_db == pytest.approx(20, abs=0.1)


def test_without_labels_there_is_no_accuracy():
    report = compare(np.eye(3), np.eye(3))
    assert report.accuracy_keras is None and report.accuracy_tflite is None
    assert report.top1_agreement == 1.0 and report.max_abs_diff == 0.0


def test_a_file_that_gives_nan_agrees_on_nothing():
    got = np.eye(3)
    got[1, 1] = np.nan
    report = compare(np.eye(3), got)
    assert report.top1_agreement == 0.0 and report.sqnr_db == -np.inf


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_report_equals_what_numpy_makes_of_the_files_own_output(trained, exported, digits, precision):
    images = load_images(digits.test, ImageSpec(32), len(digits.test))
    expected = trained.model.predict(images, verbose=0).astype("float64")
    got = TFLiteModel(exported[precision].path).predict(images).astype("float64")
    report = verify(exported[precision].path, trained.model, digits.test)
    assert report.samples == 269
    assert report.top1_agreement == pytest.approx(np.mean(expected.argmax(1) == got.argmax(1)))
    assert report.max_abs_diff == pytest.approx(np.abs(expected - got).max(), rel=1e-4)
    assert report.accuracy_keras == pytest.approx(np.mean(expected.argmax(1) == digits.test.labels))
    assert report.accuracy_tflite == pytest.approx(np.mean(got.argmax(1) == digits.test.labels))
    signal, noise = (np.log(one) - np.log(one).mean(axis=1, keepdims=True) for one in (expected, got))
    noise -= signal
    ratios = 10 * np.log10((signal**2).sum(axis=1) / (noise**2).sum(axis=1))
    assert report.sqnr_db == pytest.approx(np.median(ratios), abs=0.05)


def test_the_model_predicts_views_of_the_given_images(toy_model, smooth_images, monkeypatch):
    model, images, batches = toy_model(), smooth_images(70, 8).astype("float32"), []
    expected, predict_on_batch = model.predict(images, verbose=0), keras.Model.predict_on_batch
    monkeypatch.setattr(keras.Model, "predict_on_batch", lambda self, x: batches.append(x) or predict_on_batch(self, x))
    reference = Reference.of(model, images, ImageSpec(8))
    np.testing.assert_array_equal(reference.answers, expected)
    assert [len(batch) for batch in batches] == [32, 32, 6]
    assert all(np.shares_memory(batch, images) for batch in batches)


def test_every_kind_of_source_gives_the_same_figures(trained, exported, digits, tmp_path):
    split = digits.test.select(np.arange(30))
    for number, image in enumerate(split.images):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    batches = tf.data.Dataset.from_tensor_slices(split.images).batch(8)
    reports = [
        verify(exported["dynamic"].path, trained.model, source) for source in (tmp_path, batches, split.images, split)
    ]
    for report in reports:
        assert report.samples == 30
        assert report.max_abs_diff == pytest.approx(reports[0].max_abs_diff, rel=1e-4)
        assert report.sqnr_db == pytest.approx(reports[0].sqnr_db, abs=1e-3)
    assert reports[0].accuracy_tflite is None and reports[3].accuracy_tflite is not None


def test_labels_may_come_with_an_array_and_are_then_all_used(trained, exported, digits):
    report = verify(exported["none"].path, trained.model, digits.test.images, labels=digits.test.labels, samples=5)
    assert report.samples == 269
    assert report.accuracy_keras == pytest.approx(exported["none"].report.accuracy_keras)
    for images, labels in ((digits.test.images, digits.test.labels[:5]), ("folder", digits.test.labels)):
        with pytest.raises(UserError, match="labels need an array of images of the same length"):
            verify(exported["none"].path, trained.model, images, labels=labels)


def test_a_file_of_another_model_is_refused(exported, toy_model, smooth_images):
    with pytest.raises(UserError, match=r"The file gives outputs of \(10,\), the model of \(3,\)"):
        verify(exported["none"].path, toy_model(classes=3, size=32), smooth_images(4, 32))


def test_a_model_of_another_input_size_is_refused(exported, toy_model, smooth_images):
    with pytest.raises(UserError, match="images"):
        verify(exported["none"].path, toy_model(classes=10, size=48), smooth_images(4, 32))


def test_the_wrong_weights_show(trained, exported, digits):
    other = trained.model.__class__.from_config(trained.model.get_config())
    other.set_weights([weight[..., ::-1] if weight.ndim == 2 else weight for weight in trained.model.get_weights()])
    report = verify(exported["none"].path, other, Split(digits.test.images, digits.test.labels))
    assert report.top1_agreement < 0.3 and report.sqnr_db < 5


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_images_in_another_range_are_warned_of_once(toy_model, smooth_images, tmp_path, caplog, scale):
    images = smooth_images(40, 8) * scale
    with caplog.at_level("WARNING", "keras_effnet"):
        path = export_tflite(toy_model(), tmp_path / "toy.tflite").path
        verify(path, toy_model(), images)
        export_savedmodel(toy_model(), tmp_path / "saved", verification=images)
    assert caplog.text.count("The images lie in 0..1") == (0 if scale == 1 else 2)


def test_a_network_on_two_devices_is_compared_once(toy_model, tmp_path, smooth_images, monkeypatch):
    """Under a strategy each device predicts the whole batch."""
    model, images = toy_model(), smooth_images(24, 8)
    path = export_tflite(model, tmp_path / "toy.tflite", verification=images).path
    once = keras.Model.predict_on_batch
    monkeypatch.setattr(keras.Model, "predict_on_batch", lambda self, x: np.concatenate([once(self, x)] * 2))
    report = verify(path, model, images)
    assert (report.samples, report.top1_agreement) == (24, 1.0)
