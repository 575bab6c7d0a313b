"""SavedModel and ONNX: run outside Keras they predict as the model does, or no file is written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet import EfficientNet, architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export import export_onnx, export_savedmodel, savedmodel_onnx

HAS_ONNX = all(find_spec(package) for package in ("tf2onnx", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra onnx is not installed")
EXPORTS = [
    pytest.param(export_savedmodel, "model", id="savedmodel"),
    pytest.param(export_onnx, "model.onnx", id="onnx", marks=needs_onnx),
]


def shortened(name: str, stages: int) -> ArchitectureSpec:
    """The first stages of a narrow network: tracing all seven takes most of the time of an export."""
    spec = architecture_spec(name, width=0.25, image_size=32)
    return replace(spec, stages=spec.stages[:stages])


def leftovers(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- SavedModel


def test_a_saved_model_answers_in_a_process_without_keras(toy_model, smooth_images, tmp_path):
    model, images = toy_model(), smooth_images(3, 8).astype("float32")
    result = export_savedmodel(model, tmp_path / "toy" / "1", verification=images)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        f"served = tf.saved_model.load({str(result.path)!r}).signatures['serving_default']\n"
        f"(answer,) = served(image=tf.constant(np.load({str(tmp_path / 'images.npy')!r}))).values()\n"
        f"np.save({str(tmp_path / 'answer.npy')!r}, answer)\n"
        "assert 'keras_effnet' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), model.predict(images, verbose=0), atol=1e-6)
    assert result.format == "savedmodel" and result.report.samples == 3
    assert result.size_bytes == sum(file.stat().st_size for file in result.path.rglob("*") if file.is_file())


def test_another_folder_is_never_replaced(toy_model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not a SavedModel and is not replaced"):
        export_savedmodel(toy_model(), tmp_path / "thesis", overwrite=True)
    assert leftovers(tmp_path / "thesis") == ["chapter.txt"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("old")
    with pytest.raises(FileNotFoundError), savedmodel_onnx._atomic_folder(tmp_path / "model"):
        pass  # nothing was written, so nothing can be moved
    assert (tmp_path / "model" / "saved_model.pb").read_text() == "old"
    assert leftovers(tmp_path) == ["model"]


# --- ONNX


@needs_onnx
def test_an_onnx_file_answers_in_onnxruntime(toy_model, smooth_images, tmp_path):
    import onnxruntime

    model, images = toy_model(), smooth_images(5, 8).astype("float32")
    result = export_onnx(model, tmp_path / "toy.onnx", verification=images)
    session = onnxruntime.InferenceSession(result.path, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    assert port.name == "image" and port.shape[1:] == [8, 8, 3] and isinstance(port.shape[0], str)  # any batch
    (answer,) = session.run(None, {"image": images})
    np.testing.assert_allclose(answer, model.predict(images, verbose=0), atol=1e-6)
    assert (result.format, result.size_bytes) == ("onnx", result.path.stat().st_size)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(toy_model, tmp_path, monkeypatch):
    monkeypatch.setattr(savedmodel_onnx, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs tf2onnx and onnxruntime: pip install 'keras-effnet\[onnx\]'"):
        export_onnx(toy_model(), tmp_path / "toy.onnx")


def test_another_suffix_is_refused(toy_model, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.onnx, got .*toy\.pb"):
        export_onnx(toy_model(), tmp_path / "toy.pb")


# --- both


@pytest.mark.parametrize(("export", "name"), EXPORTS)
def test_a_network_of_this_package_agrees(export, name, tmp_path):
    spec = shortened("b0", 2)  # swish, squeeze-and-excite, and a residual in block2b
    result = export(EfficientNet(spec, weights=None, classes=10), tmp_path / name)
    assert result.path == tmp_path / name and len(result.sha256) == 64
    assert result.report.max_abs_diff < 1e-5 and result.report.sqnr_db > 60
    assert leftovers(tmp_path) == [name]


@pytest.mark.parametrize(("export", "name"), EXPORTS)
def test_mixed_precision_is_written_in_float32(export, name, toy_model, smooth_images, tmp_path):
    mixed, plain, images = toy_model(dtype="mixed_float16"), toy_model(), smooth_images(4, 8).astype("float32")
    plain.set_weights(mixed.get_weights())
    export(mixed, tmp_path / name)
    run = (savedmodel_onnx._SAVEDMODEL if name == "model" else savedmodel_onnx._ONNX).open(tmp_path / name)
    np.testing.assert_allclose(run(images), plain.predict(images, verbose=0), atol=1e-6)
    assert np.abs(mixed.predict(images, verbose=0) - plain.predict(images, verbose=0)).max() > 1e-5


def test_a_network_that_leaves_normalisation_to_others_is_compared_on_what_it_takes(tmp_path):
    model = EfficientNet(shortened("lite0", 1), weights=None, classes=10, include_preprocessing=False)
    seen = []
    predict = model.predict
    model.predict = lambda inputs, **options: seen.append(inputs) or predict(inputs, **options)
    assert export_savedmodel(model, tmp_path / "model").report.max_abs_diff < 1e-5
    assert -1.01 < seen[0].min() < 0 < seen[0].max() < 1.01  # lite takes (x - 127) / 128


@pytest.mark.parametrize(("export", "name"), EXPORTS)
def test_nothing_is_written_if_the_answers_differ(export, name, toy_model, tmp_path, monkeypatch):
    kind = savedmodel_onnx._SAVEDMODEL if name == "model" else savedmodel_onnx._ONNX
    broken = savedmodel_onnx._Format(
        kind.name, kind.write, lambda path: lambda batch: np.eye(3)[: len(batch)], kind.atomic
    )
    monkeypatch.setattr(savedmodel_onnx, "_SAVEDMODEL" if name == "model" else "_ONNX", broken)
    with pytest.raises(VerificationError, match=r"disagrees with the model.*Not written"):
        export(toy_model(), tmp_path / name, verification=np.full((3, 8, 8, 3), 7.0))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("export", "name"), EXPORTS)
def test_a_run_that_dies_leaves_nothing_under_the_name(export, name, toy_model, tmp_path, monkeypatch):
    def die(batch):
        raise KeyboardInterrupt

    kind = savedmodel_onnx._SAVEDMODEL if name == "model" else savedmodel_onnx._ONNX
    dying = savedmodel_onnx._Format(kind.name, kind.write, lambda path: die, kind.atomic)
    monkeypatch.setattr(savedmodel_onnx, "_SAVEDMODEL" if name == "model" else "_ONNX", dying)
    with pytest.raises(KeyboardInterrupt):
        export(toy_model(), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_saved_model_that_the_disk_has_no_room_for_is_said_in_one_line(toy_model, tmp_path, monkeypatch):
    def full(self, path, **options):
        (path / "variables").mkdir(parents=True)
        raise tf.errors.ResourceExhaustedError(
            None, None, f"{path}/variables/part; No space left on device [Op:SaveV2]"
        )

    monkeypatch.setattr(keras.Model, "export", full)
    with pytest.raises(UserError, match=rf"^Cannot write to {tmp_path}: No space left on device"):
        export_savedmodel(toy_model(), tmp_path / "model")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("export", "name"), EXPORTS)
def test_what_exists_is_replaced_only_if_asked_for(export, name, toy_model, tmp_path):
    first = export(toy_model(), tmp_path / name)
    with pytest.raises(UserError, match="exists; pass overwrite=True"):
        export(toy_model(classes=4), tmp_path / name)
    assert savedmodel_onnx._size_and_digest(first.path) == (first.size_bytes, first.sha256)
    second = export(toy_model(classes=4), tmp_path / name, overwrite=True)
    assert savedmodel_onnx._size_and_digest(first.path) == (second.size_bytes, second.sha256)
    assert second.sha256 != first.sha256 and leftovers(tmp_path) == [name]


@pytest.mark.parametrize(("export", "name"), EXPORTS)
def test_a_model_without_a_fixed_size_is_refused(export, name, tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(UserError, match="has no fixed size"):
        export(model, tmp_path / name)


def test_a_split_brings_its_labels(trained, digits, tmp_path):
    report = export_savedmodel(trained.model, tmp_path / "digits", verification=digits.test).report
    assert report.samples == len(digits.test.labels)
    assert report.accuracy_keras == report.accuracy_tflite >= 0.9
