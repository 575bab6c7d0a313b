"""Files of every task are proven by the task's own measure."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export import export_onnx, export_savedmodel, export_tflite, inspect, prune, verify, write_bundle
from keras_effnet.export.recipes import PRECISIONS
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.verification import compare
from keras_effnet.inference import artifacts
from keras_effnet.tasks import TASKS

HEADS = {
    "binary": lambda x: layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)),
    "multilabel": lambda x: layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)),
    "regression": lambda x: layers.Dense(1)(layers.GlobalAveragePooling2D()(x)),
    "embedding": lambda x: layers.GlobalAveragePooling2D()(x),
    "segmentation": lambda x: layers.Conv2D(3, 1, activation="softmax")(x),
}


def network(task: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(x)
    return keras.Model(image, HEADS[task](x), name=task)


@pytest.fixture(scope="module")
def images(smooth_images) -> tuple[np.ndarray, np.ndarray]:
    """Calibration images and others."""
    return smooth_images(64, 16), smooth_images(80, 16, seed=1)


@pytest.mark.parametrize("task", HEADS)
def test_files_of_every_task_are_proven_by_its_measure(task, images, tmp_path):
    model, (calibration, others) = network(task), images
    sources = {"calibration": calibration, "verification": others}
    exact, integer = (
        export_tflite(model, tmp_path / f"{precision}.tflite", precision, **sources).report
        for precision in ("none", "int8")
    )
    assert exact.task == integer.task == task and exact.top1_agreement is None
    assert exact.score > 0.999 and exact.sqnr_db > 60
    assert PRECISIONS["int8"].meets(integer) and integer.score <= exact.score and 15 < integer.sqnr_db < 60
    expected, got = model.predict(others, verbose=0), TFLiteModel(tmp_path / "int8.tflite").predict(others)
    assert integer.max_abs_diff == pytest.approx(np.abs(expected - got).max(), rel=1e-4)
    assert integer.figures == TASKS[task].agreement(expected, got).figures


def test_the_report_of_an_export_shows_the_columns_of_its_task(images, tmp_path):
    sources = {"held_out": images[1], "calibration": images[0]}
    result = write_bundle(network("segmentation"), tmp_path, ["none", "int8"], **sources)
    score = result.rows[1].report.score
    assert json.loads((tmp_path / "report.json").read_text())["rows"][1]["report"]["score"] == score
    text = (tmp_path / "report.md").read_text()
    assert "| mean IoU | same pixels | SQNR |" in text and f"| {score:.4f} of 80 [" in text
    assert "top-1" not in text and TASKS["segmentation"].explanation in text
    assert result.recommendation.startswith("Ship model_") and "a mean IoU of" in result.recommendation


def test_a_file_says_its_task_by_the_name_of_its_output(images, tmp_path):
    path = export_tflite(network("regression"), tmp_path / "net.tflite", verification=images[1]).path
    metadata = inspect(path).metadata
    assert (metadata.output_name, metadata.output_description) == ("values", "Predicted values.")
    assert "Predictor of 1 numbers" in metadata.description
    assert artifacts.load(path).task == "regression"


def test_verify_compares_by_the_task_of_the_model_or_by_a_named_one(images, tmp_path):
    model = network("embedding")
    path = export_tflite(model, tmp_path / "net.tflite", verification=images[1]).path
    assert verify(path, model, images[1]).figures.keys() == {"lowest cosine", "recall@1"}
    assert verify(path, model, images[1], task="regression").figures.keys() == {"largest error", "mean error"}
    with pytest.raises(UserError, match="labels are classes or decisions, and the model's task is embedding"):
        verify(path, model, images[1], labels=np.zeros(80, int))


def test_labels_of_two_classes_give_the_accuracy_of_decisions(images, tmp_path):
    model = network("binary")
    path = export_tflite(model, tmp_path / "net.tflite", verification=images[1]).path
    labels = (model.predict(images[1], verbose=0)[:, 0] >= 0.5).astype(int)
    labels[:8] = 1 - labels[:8]
    report = verify(path, model, images[1], labels=labels)
    assert (report.accuracy_keras, report.accuracy_tflite, report.top5_tflite) == (0.9, 0.9, None)


def test_a_file_that_fails_its_task_is_refused_in_the_words_of_the_task(images, tmp_path):
    model = network("regression")
    with pytest.raises(VerificationError, match=r"R² 0\.\d{4} on 80 images .* at least 0.9999 required; SQNR"):
        export_tflite(
            model,
            tmp_path / "net.tflite",
            "int8",
            method="minmax",  # another reaches it
            calibration=images[0],
            verification=images[1],
            min_agreement=0.9999,
        )


def test_outputs_that_are_all_alike_are_said_to_be(images, tmp_path, caplog):
    model = network("regression")
    model.layers[-1].kernel.assign(np.zeros((8, 1)))
    model.layers[-1].bias.assign([3.0])
    with pytest.raises(VerificationError):
        export_tflite(model, tmp_path / "net.tflite", verification=images[1] + 0.0)
    assert (
        "gives almost the same output for all 80 images, so the agreement proves little. Is it trained?" in caplog.text
    )


def test_fine_tuning_refuses_what_it_cannot_train(images):
    with pytest.raises(UserError, match=r"Fine-tuning needs an output of shape .* the task of this one is multilabel"):
        prune(network("multilabel"), images[0], 0.5)


def test_other_formats_are_compared_by_the_task_too(images, tmp_path):
    report = export_savedmodel(network("regression"), tmp_path / "saved", verification=images[1]).report
    assert report.task == "regression" and report.score == pytest.approx(1) and report.sqnr_db > 60


@pytest.mark.parametrize("export", [export_savedmodel, export_onnx])
def test_augmentation_within_a_network_is_off_in_other_formats(export, images, tmp_path):
    if export is export_onnx:
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to export with")
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.RandomRotation(0.5), network("embedding")])
    report = export(model, tmp_path / "net.onnx", verification=images[1]).report
    assert report.sqnr_db > 60


def test_labels_show_what_a_file_of_decisions_loses_in_auc():
    truth = np.array([[0, 1], [0, 0], [1, 1], [1, 0]])
    expected = np.array([[0.1, 0.9], [0.2, 0.1], [0.8, 0.7], [0.9, 0.3]])
    got = expected.copy()
    got[1, 0] = 0.85  # now between the two positives: AUC 1 becomes 0.75
    report = compare(expected, got, truth, TASKS["multilabel"])
    assert report.figures["AUC drift"] == pytest.approx(0.25)
    binary = compare(expected[:, :1], got[:, :1], truth[:, 0], TASKS["binary"])
    assert binary.figures["AUC drift"] == pytest.approx(0.25) and binary.accuracy_tflite == 0.75
    assert "AUC drift" not in compare(expected, got, None, TASKS["multilabel"]).figures
