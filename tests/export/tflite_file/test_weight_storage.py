"""Weights stored in fewer bits: the same bytes that TensorFlow's converter writes, without another conversion."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet import EfficientNet, architecture_spec
from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.conversion.folding import fold_batch_norms
from keras_effnet.export.tflite_file.inspection import operators
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import code_name, operator_name, parse
from keras_effnet.export.tflite_file.weight_storage import dynamic_range, float16_weights, int8_weights
from keras_effnet.system.output import captured_output

FLOAT16, INT8 = 1, 9  # of the schema's TensorType


@pytest.fixture(scope="module", params=["b0", "lite0"])
def model(request) -> keras.Model:
    keras.utils.set_random_seed(0)
    spec = architecture_spec(request.param, depth=0.2, width=0.5, image_size=32)
    return EfficientNet(spec, weights=None, classes=110, classifier_activation=None, input_shape=(32, 32, 3))


@pytest.fixture(scope="module")
def content(model) -> bytes:
    with captured_output():
        return convert(model)


def by_tensorflow(model: keras.Model, **options) -> bytes:
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    function = tf.function(lambda image: model(image, training=False)).get_concrete_function(signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options:
        converter.target_spec.supported_types = options["types"]
    with captured_output():
        return converter.convert()


def constants(content: bytes, kind: int) -> list[tuple[tuple[int, ...], np.ndarray, np.ndarray | None, int]]:
    """Shape, values, scales and channel axis of the constants of a type, in an order that both writers share."""
    file = parse(content)
    found = []
    for tensor in file.subgraphs[0].tensors:
        data = file.buffers[tensor.buffer].data
        if data is not None and tensor.type == kind:
            values = np.frombuffer(bytes(data), "float16" if kind == FLOAT16 else "int8")
            scale = None if kind == FLOAT16 else tensor.quantization.scale
            found.append(
                (tuple(tensor.shape), values, scale, tensor.quantization and tensor.quantization.quantizedDimension)
            )
    return sorted(found, key=lambda entry: (entry[0], float(np.abs(entry[1].astype("float64")).sum())))


def test_float16_has_every_kernel_and_bias_as_tensorflow_rounds_it(model, content):
    ours, theirs = (
        constants(float16_weights(content), FLOAT16),
        constants(by_tensorflow(model, types=[tf.float16]), FLOAT16),
    )
    kernels = [entry for entry in theirs if len(entry[0]) > 1]
    assert len([entry for entry in ours if len(entry[0]) > 1]) == len(kernels) > 10
    for mine, other in zip([e for e in ours if len(e[0]) > 1], kernels, strict=True):
        assert mine[0] == other[0]
        np.testing.assert_allclose(mine[1].astype("float32"), other[1].astype("float32"), rtol=2e-3, atol=1e-6)


def test_float16_answers_as_tensorflows_file(model, content, smooth_images):
    images = smooth_images(8, 32).astype("float32")
    ours, theirs = (
        TFLiteModel(c).predict(images) for c in (float16_weights(content), by_tensorflow(model, types=[tf.float16]))
    )
    exact = TFLiteModel(content).predict(images)
    assert np.abs(ours - exact).max() > 0
    assert np.abs(ours - exact).max() < 2 * np.abs(theirs - exact).max()


@pytest.mark.parametrize("writer", [dynamic_range, int8_weights])
def test_int8_kernels_have_the_steps_that_tensorflow_gives_them(writer, model, content):
    ours, theirs = constants(writer(content), INT8), constants(by_tensorflow(model), INT8)
    if writer is int8_weights:
        small = [entry for entry in theirs if entry[1].size <= half_size(model)]
        assert small and len(constants(writer(content), FLOAT16)) == len(small)
        theirs = [entry for entry in theirs if entry[1].size > half_size(model)]
    assert [entry[0] for entry in ours] == [entry[0] for entry in theirs]
    for (shape, values, scale, axis), (_, other, other_scale, other_axis) in zip(ours, theirs, strict=True):
        assert axis == other_axis, shape
        np.testing.assert_allclose(np.sort(scale), np.sort(other_scale), rtol=1e-3)
        assert np.abs(values).max() == np.abs(other).max() == 127


def half_size(model: keras.Model) -> int:
    """Size of the largest kernel that is float16 in an int8 file: up to it, kernels have 4% of all values."""
    sizes = sorted(np.size(weight) for weight in model.weights if "kernel" in weight.path)
    return max(size for size in sizes if sum(each for each in sizes if each <= size) <= 0.04 * sum(sizes))


def test_dynamic_range_answers_as_tensorflows_file(model, content, smooth_images):
    images = smooth_images(8, 32).astype("float32")
    ours, theirs = (TFLiteModel(c).predict(images) for c in (dynamic_range(content), by_tensorflow(model)))
    exact = TFLiteModel(content).predict(images)
    ours, theirs = (float(np.mean((answer - exact) ** 2)) for answer in (ours, theirs))
    assert 0 < ours < 1.5 * theirs


def test_operators_stay_but_for_the_unpacking_of_weights(content):
    plain = operators(content)
    assert operators(dynamic_range(content)) == plain
    for writer, unpacked in ((float16_weights, 21), (int8_weights, 17)):
        widened = operators(made := writer(content))
        versions = {
            code_name(code.customCode, code.builtinCode, code.deprecatedBuiltinCode): code.version
            for code in parse(made).operatorCodes
        }
        assert versions["DEQUANTIZE"] >= (5 if writer is int8_weights else 3)  # of scales per channel, of float16
        assert widened.pop("DEQUANTIZE") >= unpacked and widened == plain


def test_operators_with_int8_kernels_are_marked_as_such_each_of_those_that_share_one():
    image, again = keras.Input((8, 8, 3)), keras.layers.Dense(40)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(40, 3)(image))
    model = keras.Model(image, again(keras.layers.ReLU()(again(x))))
    with captured_output():
        file = parse(dynamic_range(convert(model)))
    versions = {operator_name(file, each): file.operatorCodes[each.opcodeIndex].version for each in operators_of(file)}
    assert versions["CONV_2D"] >= 5 and versions["FULLY_CONNECTED"] >= 12
    dense = [each for each in operators_of(file) if operator_name(file, each) == "FULLY_CONNECTED"]
    assert [each.builtinOptions.asymmetricQuantizeInputs for each in dense] == [True, True]


def operators_of(file):
    return file.subgraphs[0].operators


def test_files_shrink_to_a_half_and_to_a_third(content):
    assert len(float16_weights(content)) < 0.56 * len(content)
    assert len(dynamic_range(content)) < 0.36 * len(content)
    assert len(int8_weights(content)) < 0.38 * len(content)


def test_weight_only_int8_computes_in_float32_with_rounded_kernels(model, content, smooth_images):
    images = smooth_images(8, 32).astype("float32")
    rounded, largest_half = fold_batch_norms(model), half_size(model)
    rounded.set_weights([_as_int8_stores(weight, largest_half) for weight in rounded.weights])
    expected = rounded.predict(images, verbose=0)
    lost = np.abs(TFLiteModel(content).predict(images) - expected).max()
    assert np.abs(TFLiteModel(int8_weights(content)).predict(images) - expected).max() < 0.02 * lost


def _as_int8_stores(weight, largest_half: int) -> np.ndarray:
    values = np.asarray(weight)
    if "kernel" not in weight.path or values.size < 1024:
        return values
    if values.size <= largest_half:
        return values.astype("float16").astype("float32")
    others = (0, 1) if "dwconv" in weight.path else tuple(range(values.ndim - 1))
    step = np.abs(values).max(axis=others, keepdims=True) / 127
    return np.round(values / step) * step


@pytest.mark.parametrize("size", [1e6, 1e-9])
def test_weights_beyond_the_range_of_float16_stay_in_float32(size, toy_model, smooth_images):
    model = toy_model()
    model.layers[-1].set_weights([np.full((8, 3), size), np.zeros(3)])
    with captured_output():
        exact = convert(model)
    content = float16_weights(exact)
    assert len(constants(content, FLOAT16)) == 2  # kernel and bias of the convolution
    images = smooth_images(2, 8)
    expected, got = (TFLiteModel(each).predict(images) for each in (exact, content))
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("size", [1e6, 1e-9])
def test_small_kernels_beyond_the_range_of_float16_are_int8(size):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 5, name="small")(image)  # 1,200 values of 105,000
    model = keras.Model(image, keras.layers.Conv2D(4096, 1)(keras.layers.Conv2D(16, 3)(x)))
    with captured_output():
        small = convert(model)
        model.get_layer("small").set_weights([size * each for each in model.get_layer("small").get_weights()])
        beyond = convert(model)
    kernel = (16, 5, 5, 3)
    assert [entry[0] for entry in constants(int8_weights(small), FLOAT16)][:1] == [kernel]
    assert kernel in [entry[0] for entry in constants(int8_weights(beyond), INT8)]
