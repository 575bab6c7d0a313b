"""int16x8: int8 weights, int16 activations, a bias for each operator, and a softmax in float."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.export import export_tflite
from keras_effnet.export.calibration import load_images
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.structure import float32_copy
from keras_effnet.export.int8.noise_sources import by_kind, noise
from keras_effnet.export.int8.quantizers import quantize_int16x8
from keras_effnet.export.int8.range_fitting import ActivationFit
from keras_effnet.export.tflite_file.inspection import inspect, operators
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.output import captured_output


@pytest.fixture(scope="module")
def result(trained, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("int16x8") / "digits.tflite"
    return export_tflite(
        trained.model, path, "int16x8", calibration=digits.train, verification=digits.test.select(np.arange(60))
    )


def test_int16x8_loses_what_rounded_kernels_lose_and_int8_more(result, trained, digits, tmp_path):
    held_out = digits.test.select(np.arange(60))
    options = {"calibration": digits.train, "verification": held_out}
    int8 = export_tflite(trained.model, tmp_path / "int8.tflite", "int8", **options)
    plain = export_tflite(trained.model, tmp_path / "plain.tflite", "int8", method="minmax", **options)
    assert int8.method == "corrected"  # which int16x8 is not: measured 32.3 dB against 29.4 corrected
    images = load_images(held_out, ImageSpec.of_model(trained.model), len(held_out))
    expected, found = trained.model.predict(images, verbose=0), TFLiteModel(result.path).predict(images)
    second, first = np.sort(expected, axis=1)[:, -2:].T
    sure = first - second > 0.1  # the processor that trained the network decides where it wavers
    assert sure.sum() >= 55
    np.testing.assert_array_equal(found.argmax(axis=1)[sure], expected.argmax(axis=1)[sure])
    assert result.report.sqnr_db > int8.report.sqnr_db
    # How much int8 activations add to the rounded kernels, which both have, depends on the trained network.
    with captured_output():
        graph = FloatGraph(float32_copy(trained.model), images[:1])
        kernels = by_kind(ActivationFit(graph.content, graph.images))["kernels"]
        rounded = noise(graph, graph.minmax, {"kernels": kernels}, images)["kernels"]
    assert result.report.sqnr_db == pytest.approx(-10 * np.log10(rounded), abs=1)
    assert result.report.sqnr_db > plain.report.sqnr_db


def test_weights_are_int8_activations_int16_and_biases_int64(result):
    found = inspect(result.path)
    assert found.precision == "int16x8"
    assert {"int8", "int16", "int64"} <= set(found.dtypes)
    assert result.size_bytes < 0.6 * 4 * 400_000


def test_the_softmax_is_in_float_behind_the_last_dequantize(result):
    file = parse(result.path.read_bytes())
    *_, last = file.subgraphs[0].operators
    assert [int(i) for i in last.outputs] == [int(i) for i in file.subgraphs[0].outputs]
    assert all(file.subgraphs[0].tensors[int(i)].type == 0 for i in (*last.inputs, *last.outputs))
    assert operators(result.path.read_bytes())["SOFTMAX"] == 1


def test_small_probabilities_survive(result, digits):
    images = np.repeat(np.repeat(digits.test.images[:10], 4, 1), 4, 2).astype("float32")
    outputs = TFLiteModel(result.path).predict(images)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)
    steps = outputs * 32768  # of a softmax in int16
    assert np.abs(steps - np.round(steps)).max() > 0.1


def pooled(connect) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(connect(keras.layers.Rescaling(1 / 255)(image))))


def called_again(x):
    again = keras.layers.Conv2D(3, 3, bias_initializer=keras.initializers.RandomUniform(2, 9))
    return again(keras.layers.MaxPooling2D(2)(again(x)))


def test_a_layer_that_is_called_again_has_a_bias_for_each_input(smooth_images):
    images = smooth_images(8, 8).astype("float32")
    with captured_output():
        graph = FloatGraph(pooled(called_again), images)
        found = TFLiteModel(quantize_int16x8(graph.minmax)).predict(images)
    assert graph.outputs.sqnr_db(TFLiteModel(graph.content).predict(images), found) > 30


def test_operators_without_an_int16_form_are_named(smooth_images):
    with captured_output():
        graph = FloatGraph(pooled(keras.layers.PReLU(shared_axes=[1, 2])), smooth_images(2, 8).astype("float32"))
        with pytest.raises(UserError, match=r"no int16x8 file: .*'PRELU'\. Use another precision, such as int8"):
            quantize_int16x8(graph.minmax)
