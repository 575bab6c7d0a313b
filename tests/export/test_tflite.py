"""`export_tflite`: a file is written only after it was run and agreed with the model."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from exports import PRECISIONS
from PIL import Image

from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export import export_tflite, recipes
from keras_effnet.export.tflite_file.interpreter import TFLiteModel


@pytest.fixture
def toy(toy_model):
    return toy_model(size=32)


@pytest.fixture
def images(smooth_images) -> np.ndarray:
    return smooth_images(40, 32).astype("float32")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_result_describes_the_file_that_was_written(exported, precision):
    result = exported[precision]
    content = result.path.read_bytes()
    assert result.size_bytes == len(content)
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert result.quantization == precision
    assert result.input_type == ("uint8" if precision == "int8" else "float32")
    assert result.seconds > 0


def test_class_names_lie_beside_the_file(exported):
    assert (exported["none"].path.parent / "labels.txt").read_text() == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"


def test_the_file_and_its_record_are_all_that_is_written_without_labels(toy, images, tmp_path):
    export_tflite(toy, tmp_path / "deep/er/model.tflite", "int8", calibration=images)
    assert files(tmp_path) == ["deep/er/model.json", "deep/er/model.tflite"]


def test_the_record_says_how_the_file_was_made_and_what_it_was_held_against(exported):
    result = exported["int8"]
    record = json.loads(result.path.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(result.path.read_bytes()).hexdigest()
    assert (record["quantization"], record["method"], record["input_type"]) == ("int8", "corrected", "uint8")
    assert record["calibration"]["images"] == 100 and len(record["calibration"]["sha256"]) == 64
    assert record["report"]["top1_agreement"] == result.report.top1_agreement
    assert record["bounds"] == {"min_agreement": 0.93, "min_sqnr_db": 10.0}
    assert record["environment"]["packages"]["tensorflow"] == tf.__version__
    assert json.loads(exported["none"].path.with_suffix(".json").read_text())["calibration"] is None


def test_a_report_says_whether_calibration_saw_the_images(toy, images, tmp_path, caplog):
    def report(precision, **sources):
        return export_tflite(toy, tmp_path / f"{len(files(tmp_path))}.tflite", precision, **sources).report

    assert (report("none").evidence, report("none").samples) == ("synthetic", 16)
    assert report("int8", calibration=images).evidence == "calibration"
    assert report("float16", calibration=images).evidence == "held-out"  # it was not calibrated
    with caplog.at_level("WARNING", "keras_effnet"):
        partly = report("int8", calibration=images[:30], verification=images)
        wholly = report("int8", calibration=images, verification=images[:25])
    assert (partly.evidence, partly.samples) == ("held-out", 10)
    assert "30 of 40 images to compare on are calibration images; left out." in caplog.text
    assert (wholly.evidence, wholly.samples) == ("calibration", 25)
    assert "All images to compare on are calibration images" in caplog.text


def test_the_fingerprint_tells_calibrations_apart(toy, images, tmp_path):
    def sha256(name, calibration):
        path = tmp_path / f"{name}.tflite"
        return export_tflite(toy, path, "int8", calibration=calibration, verification=images).calibration["sha256"]

    first, again, other = sha256("a", images), sha256("b", images), sha256("c", images[::-1])
    assert first == again != other


def test_the_file_gives_the_predictions_of_the_model(toy, images, tmp_path):
    path = tmp_path / "model.tflite"
    export_tflite(toy, path)
    np.testing.assert_allclose(TFLiteModel(path).predict(images), toy.predict(images, verbose=0), atol=1e-6)


@pytest.mark.slow
def test_calibration_comes_from_a_folder_a_dataset_an_array_or_a_split(trained, digits, tmp_path):
    for number, image in enumerate(digits.train.images[:60]):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    sources = {
        "folder": tmp_path,
        "batches": tf.data.Dataset.from_tensor_slices(digits.train.images[:60]).batch(16),
        "array": digits.train.images[:60],
        "split": digits.train.select(np.arange(60)),
    }
    outputs = []
    for name, source in sources.items():
        path = tmp_path / f"{name}.tflite"
        export_tflite(trained.model, path, "int8", calibration=source, verification=digits.test)
        outputs.append(TFLiteModel(path).predict(np.repeat(np.repeat(digits.test.images[:20], 4, 1), 4, 2)))
    for got in outputs[1:]:  # the same sixty images in any order give the same ranges
        np.testing.assert_allclose(got, outputs[0], atol=0.02)


def test_the_converters_chatter_is_in_the_log_and_not_on_the_terminal(toy, tmp_path, capfd):
    result = export_tflite(toy, tmp_path / "model.tflite")
    shown = capfd.readouterr()
    assert shown.out == "" and shown.err == ""
    assert isinstance(result.log, tuple)


# ------------------------------------------------------------------ refused before anything runs


def test_an_existing_file_is_refused_and_left_as_it_is(toy, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"model\.tflite exists; pass overwrite=True \(--overwrite\)"):
        export_tflite(toy, path)
    assert path.read_bytes() == b"precious" and files(tmp_path) == ["model.tflite"]
    export_tflite(toy, path, overwrite=True)
    assert TFLiteModel(path).classes == 3


def test_labels_of_another_model_are_not_overwritten_either(toy, tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\nemu\n")
    with pytest.raises(UserError, match=r"labels\.txt"):
        export_tflite(toy, tmp_path / "model.tflite", labels=["ash", "oak", "yew"])
    assert (tmp_path / "labels.txt").read_text() == "cat\ndog\nemu\n"
    assert files(tmp_path) == ["labels.txt"]


def test_another_suffix_is_refused(toy, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.tflite, got .*model\.lite"):
        export_tflite(toy, tmp_path / "model.lite")


def test_a_file_in_place_of_the_folder_is_refused(toy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write to .*file"):
        export_tflite(toy, tmp_path / "file/model.tflite")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
def test_a_folder_in_which_nothing_can_be_written_is_refused(toy):
    with pytest.raises(UserError, match="Cannot write to /proc"):
        export_tflite(toy, "/proc/model.tflite")


def test_an_unknown_precision_gets_the_closest_one(toy, tmp_path):
    with pytest.raises(UserError, match=r"Unknown quantization 'int4'\. Did you mean 'int8'"):
        export_tflite(toy, tmp_path / "model.tflite", "int4")


def test_an_unknown_input_type_gets_the_closest_one(toy, tmp_path):
    with pytest.raises(UserError, match=r"Unknown input type 'int8'\. Did you mean 'uint8'"):
        export_tflite(toy, tmp_path / "model.tflite", "int8", calibration="anything", input_type="int8")


def test_int8_without_calibration_is_refused_with_what_is_wanted(toy, tmp_path):
    with pytest.raises(UserError, match=r"int8 needs images to calibrate on: calibration=FOLDER \(--calibration"):
        export_tflite(toy, tmp_path / "model.tflite", "int8")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("precision", "options", "message"),
    [
        ("int8", {"method": "minmx"}, "Unknown method 'minmx'. Did you mean 'minmax'"),
        ("mixed", {"method": "minmax"}, "method='minmax' is a way to an int8 file, not to a mixed one"),
        ("int8", {"float_blocks": ["stem"]}, "float_blocks go with quantization='mixed', not 'int8'"),
        ("mixed", {"float_blocks": ["dense_z"]}, "Unknown block 'dense_z'. Did you mean 'dense'"),
    ],
)
def test_settings_that_a_precision_has_no_use_for_are_refused(toy, images, tmp_path, precision, options, message):
    toy.layers[-1].name = "dense"
    with pytest.raises(UserError, match=message):
        export_tflite(toy, tmp_path / "model.tflite", precision, calibration=images, **options)
    assert files(tmp_path) == []


def test_a_bound_of_ones_own_refuses_what_the_precision_would_take(fragile_model, small_images, tmp_path):
    def exported(name, **options):
        return export_tflite(fragile_model(0.3), tmp_path / name, "int8", calibration=small_images, **options)

    assert 0.9 <= exported("taken.tflite").report.top1_agreement < 0.99
    with pytest.raises(VerificationError, match=r"at least 99\.0% required"):
        exported("refused.tflite", min_agreement=0.99)
    assert files(tmp_path) == ["taken.json", "taken.tflite"]


@pytest.mark.parametrize("precision", ["none", "float16", "dynamic", "int16x8"])
def test_bytes_as_input_need_int8(toy, tmp_path, precision):
    with pytest.raises(UserError, match="needs quantization='int8'"):
        export_tflite(toy, tmp_path / "model.tflite", precision, input_type="uint8")


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c", "d"]])
def test_labels_of_the_wrong_number_are_refused(toy, tmp_path, labels):
    with pytest.raises(UserError, match=f"{len(labels)} labels for a model of 3 classes"):
        export_tflite(toy, tmp_path / "model.tflite", labels=labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("abc", "labels must be a list of names, got 'abc'"),
        (["a", "b\nc", "d"], r"must be a name on one line, got 'b\\nc'"),
        (["a", "b", None], "must be a name on one line, got None"),
    ],
)
def test_labels_that_are_no_names_are_refused(toy, tmp_path, labels, message):
    with pytest.raises(UserError, match=message):
        export_tflite(toy, tmp_path / "model.tflite", labels=labels)


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan"), "0.5"])
def test_a_bound_that_is_no_share_is_refused(least):
    with pytest.raises(UserError, match="min_agreement must"):
        recipes.PRECISIONS["int8"].with_min_agreement(least)


def recurrent() -> keras.Model:
    image = keras.Input((16, 16, 3))
    x = keras.layers.GRU(4)(keras.layers.Reshape((16, 48))(keras.layers.Rescaling(1 / 255)(image)))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


def test_only_float32_files_hold_a_recurrent_layer(tmp_path):
    with pytest.raises(UserError, match=r"Layer 'gru.*' is recurrent, .* quantization='none', --quantize none"):
        export_tflite(recurrent(), tmp_path / "model.tflite", "dynamic")


@pytest.mark.slow
def test_a_recurrent_network_is_exported_in_float32(smooth_images, tmp_path):
    result = export_tflite(recurrent(), tmp_path / "model.tflite", verification=smooth_images(24, 16))
    assert result.report.top1_agreement == 1.0


# ------------------------------------------------------------------ images that cannot be right


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: np.random.default_rng(0).uniform(0, 255, p.shape), "look like noise"),
        (lambda p: np.full_like(p, 127), "Every calibration pixel is 127"),
        (lambda p: p / 255, r"give 0\.\.255, not 0\.\.1"),
        (lambda p: p / 127.5 - 1, r"the network normalises itself and takes 0\.\.255"),
        (lambda p: np.where(p > 200, np.nan, p), "NaN or infinite"),
    ],
    ids=["noise", "constant", "0..1", "negative", "nan"],
)
def test_calibration_images_that_cannot_be_right_are_refused_and_nothing_is_written(
    toy, images, tmp_path, spoil, message
):
    with pytest.raises(UserError, match=message):
        export_tflite(toy, tmp_path / "model.tflite", "int8", calibration=spoil(images))
    assert files(tmp_path) == []


def test_few_calibration_images_are_warned_of(toy, images, tmp_path, caplog):
    with caplog.at_level("WARNING", "keras_effnet"):
        export_tflite(toy, tmp_path / "model.tflite", "int8", calibration=images[:5], verification=images)
    assert "Only 5 calibration images; use 20 or more" in caplog.text


# ------------------------------------------------------------------ found wanting


@pytest.fixture
def small_images(smooth_images) -> np.ndarray:
    return smooth_images(60, 8)


def test_a_file_that_disagrees_is_not_written(fragile_model, small_images, tmp_path):
    with pytest.raises(VerificationError, match="The int8 file disagrees with the model: the same class on") as caught:
        export_tflite(fragile_model(), tmp_path / "model.tflite", "int8", calibration=small_images, labels=list("rgb"))
    message = str(caught.value)
    assert re.search(r"\d+ of 60 calibration images \(.*, 95% interval .* to .*\), at least 93.0%", message)
    assert "SQNR" in message and "use another precision" in message
    assert files(tmp_path) == []


def test_a_file_that_disagrees_does_not_replace_an_earlier_one(fragile_model, small_images, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"earlier")
    with pytest.raises(VerificationError):
        export_tflite(fragile_model(), path, "int8", calibration=small_images, overwrite=True)
    assert path.read_bytes() == b"earlier" and files(tmp_path) == ["model.tflite"]


def test_a_file_that_cannot_be_run_is_found_wanting_and_not_written(fragile_model, small_images, tmp_path):
    # A millionfold span of scales is beyond what the int8 kernels of LiteRT can prepare.
    with pytest.raises(VerificationError):
        export_tflite(fragile_model(1e-6), tmp_path / "model.tflite", "int8", calibration=small_images)
    assert files(tmp_path) == []


def test_the_same_network_passes_where_arithmetic_is_float(fragile_model, small_images, tmp_path):
    result = export_tflite(fragile_model(), tmp_path / "model.tflite", "float16", verification=small_images)
    assert result.report.top1_agreement == 1.0


def test_a_file_that_disagrees_can_be_kept_for_research_with_a_warning(fragile_model, small_images, tmp_path, caplog):
    path = tmp_path / "model.tflite"
    with caplog.at_level("WARNING", "keras_effnet"):
        result = export_tflite(fragile_model(), path, "int8", calibration=small_images, allow_degraded=True)
    assert result.report.top1_agreement < 0.9 and path.is_file()
    assert "disagrees with the model" in caplog.text


# ------------------------------------------------------------------ a full disk


@pytest.mark.parametrize("last", [".tflite", ".json", "labels.txt"])
def test_a_disk_that_fills_up_leaves_all_of_it_as_it_was(toy, tmp_path, monkeypatch, last):
    path = tmp_path / "model.tflite"
    export_tflite(toy, path, labels=list("abc"))
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    toy.set_weights([value + 0.1 for value in toy.get_weights()])
    write = Path.write_bytes

    def half_written(self, content):
        write(self, content[: len(content) // 2] if self.name.endswith(last) else content)
        if self.name.endswith(last):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(
        UserError, match=rf"^Cannot write to {tmp_path}: No space left on device\. Free some space and run"
    ):
        export_tflite(toy, path, labels=list("xyz"), overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


# ------------------------------------------------------------------ killed

KILLED = """
import os, pathlib, signal, sys
import keras
import numpy as np
from keras_effnet import EfficientNet
from keras_effnet.export import export_tflite, recipes

write = pathlib.Path.write_bytes
def half_written(path, content):
    write(path, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.write_bytes = half_written
model = EfficientNet("lite0", weights=None, classes=3, input_shape=(32, 32, 3))
export_tflite(model, sys.argv[1], overwrite=True)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_writes_leaves_the_earlier_file_whole(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"earlier")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == b"earlier"
    assert [name for name in files(tmp_path) if not name.startswith(".")] == ["model.tflite"]
