"""The function that every precision is converted from: float32, one picture, fixed size."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet
from keras_effnet.errors import UserError
from keras_effnet.export import export_tflite
from keras_effnet.export.conversion import float32_copy, serving_function, weight_count
from keras_effnet.export.inspection import operators
from keras_effnet.export.interpreter import TFLiteModel

SMALL = {"weights": None, "classes": 5, "input_shape": (32, 32, 3)}


def test_the_function_takes_one_float_picture_and_equals_the_model(toy_model, smooth_pictures):
    model = toy_model()
    function = serving_function(model)
    (signature,) = function.structured_input_signature[0]
    assert signature.shape == (1, 8, 8, 3) and signature.dtype == "float32"
    pictures = smooth_pictures(3, 8).astype("float32")
    got = np.concatenate([np.asarray(function(keras.ops.convert_to_tensor(one[None]))) for one in pictures])
    np.testing.assert_allclose(got, model.predict(pictures, verbose=0), atol=1e-6)


def test_a_float32_model_is_taken_as_it_is(toy_model):
    model = toy_model()
    assert float32_copy(model) is model


def test_a_mixed_precision_model_is_rebuilt_in_float32_with_its_weights():
    model = EfficientNet("lite0", dtype="mixed_float16", **SMALL)
    copy = float32_copy(model)
    assert all(layer.compute_dtype == "float32" for layer in copy.layers)
    assert [layer.name for layer in copy.layers[1:]] == [layer.name for layer in model.layers[1:]]
    for expected, got in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_precision_model_exports_to_what_its_float32_twin_exports_to(
    toy_model, smooth_pictures, tmp_path, policy
):
    plain, mixed = toy_model(), toy_model(dtype=policy)
    mixed.set_weights(plain.get_weights())
    pictures = smooth_pictures(30, 8)
    results = [
        export_tflite(model, tmp_path / f"{number}.tflite", "none", verification=pictures)
        for number, model in enumerate((plain, mixed))
    ]
    contents = [result.path.read_bytes() for result in results]
    assert operators(contents[0]) == operators(contents[1])
    first, second = (TFLiteModel(content).predict(pictures) for content in contents)
    np.testing.assert_allclose(second, first, atol=1e-6)
    assert results[1].report.top1_agreement == 1.0


def test_weights_are_counted_as_kernels():
    model = EfficientNet("lite0", **SMALL)
    kernels = sum(np.prod(w.shape) for w in model.weights if w.name in ("kernel", "depthwise_kernel"))
    assert weight_count(model) == pytest.approx(kernels, rel=1e-12)


def test_a_model_of_unknown_size_is_refused_with_the_cure(tmp_path):
    model = EfficientNet("lite0", weights=None, classes=5, input_shape=(None, None, 3))
    with pytest.raises(UserError, match=r"has no fixed size; build it with input_shape=\(H, W, 3\)"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_model_of_several_inputs_or_outputs_is_refused(tmp_path):
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    pooled = [keras.layers.GlobalAveragePooling2D()(image) for image in (first, second)]
    two_in = keras.Model([first, second], keras.layers.Concatenate()(pooled))
    two_out = keras.Model(first, [pooled[0], keras.layers.Dense(2)(pooled[0])])
    for model, counts in ((two_in, "2 and 1"), (two_out, "1 and 2")):
        with pytest.raises(UserError, match=f"one input and one output; the model has {counts}"):
            export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
