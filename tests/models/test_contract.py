"""Contract of every network in `list_models()`: build, count, train, save, precision, features, new head, export.

Full-size networks are built and counted. Everything else runs on a scaled-down version that has every kind of block of
the network: a fifth of its depth, a quarter of its width, 32 pixels. One network of each kind is always tested, the
others belong to the slow tests.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet, architecture_spec, features, list_models, load_weights
from keras_effnet.architecture.specs import ArchitectureSpec, expand
from keras_effnet.complexity import count
from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.models import load_model
from keras_effnet.system.output import captured_output
from keras_effnet.transfer import swap_head

SIZE, CLASSES = 32, 5
PUBLISHED = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet.json").read_text())
FIGURES = PUBLISHED["models"] | PUBLISHED["v2"] | PUBLISHED["baselines"]
KINDS = ("b0", "lite0", "resnet18", "resnet50", "wide_resnet28")  # one of each kind of block, with and without gates


RARELY = ("v2-b1", "v2-b2", "v2-b3", "v2-m", "v2-l", "v2-xl")  # the blocks of v2-b0 and v2-s, more and wider ones


def networks(*always: str):
    """Parametrizes a test over all networks, those not named as slow tests."""
    marks = {name: pytest.mark.soak if name in RARELY else pytest.mark.slow for name in list_models()}
    return pytest.mark.parametrize(
        "name", [name if name in always else pytest.param(name, marks=mark) for name, mark in marks.items()]
    )


every_network = networks(*KINDS)


def scaled_down(name: str) -> ArchitectureSpec:
    return architecture_spec(name, depth=0.2, width=0.25, image_size=SIZE)


def build(name: str, **options) -> keras.Model:
    return EfficientNet(scaled_down(name), **{"weights": None, "classes": CLASSES} | options)


@cache
def network(name: str) -> keras.Model:
    """A network whose every weight and statistic differs from those of a fresh one. No test may change it."""
    keras.utils.set_random_seed(0)
    model = build(name)
    rng = np.random.default_rng(1)
    model.set_weights([weight * rng.uniform(0.8, 1.25, weight.shape) + 0.01 for weight in model.get_weights()])
    return model


def images(count: int = 4, size: int = SIZE) -> np.ndarray:
    """Patches of plain colour under noise: pure noise looks alike to a network, whatever its seed."""
    rng = np.random.default_rng(2)
    patches = rng.integers(0, 256, (count, 4, 4, 3)).repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    return np.clip(patches + rng.integers(-60, 61, patches.shape), 0, 255).astype("float32")


def outputs(model: keras.Model) -> np.ndarray:
    return np.asarray(model(images(), training=False))


def relative(got, expected, tolerance: float) -> None:
    """Holds two results together to a share of the largest value, and asks that they distinguish the images."""
    got, expected = np.asarray(got), np.asarray(expected)
    largest = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 10 * tolerance * largest
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * largest)


@networks(*KINDS, "b1", "mobilenetv2")
def test_builds_at_full_size_with_the_published_parameters_and_the_counted_cost(name):
    spec, figures = architecture_spec(name), FIGURES[name]
    model = EfficientNet(spec, weights=None)
    counted, built = count(spec), count(model)
    assert built.params == counted.params == figures["params"]
    assert built.total_params == counted.total_params == figures.get("total_params", counted.total_params)
    assert built.macs == counted.macs == figures.get("macs", counted.macs)
    assert built.activations == counted.activations == figures.get("activations", counted.activations)
    assert counted.total_params == model.count_params()
    assert model.input_shape == (None, figures["resolution"], figures["resolution"], 3)
    assert model.output_shape == (None, 1000)
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {"keras"}  # stock layers only


@networks(*KINDS, "v2-b0")
def test_gradients_reach_every_trainable_weight(name):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = build(name, drop_connect_rate=0, dropout_rate=0, classifier_activation=None)
    target = np.random.default_rng(0).normal(0, 1, (8, CLASSES)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(images(8), training=True) - target) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all() and np.any(gradient), variable.path


@every_network
def test_a_saved_network_is_reloaded_bit_for_bit(name, tmp_path):
    model, fresh = network(name), build(name)
    expected = outputs(model)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(outputs(load_model(tmp_path / "model.keras")), expected)
    assert not np.array_equal(outputs(fresh), expected)
    load_weights(fresh, tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(outputs(fresh), expected)


@every_network
def test_mixed_precision_keeps_weights_and_probabilities_in_float32(name):
    # Untrained, the residual sums of wide_resnet50 exceed the range of float16.
    half = "bfloat16" if name == "wide_resnet50" else "float16"
    mixed = build(name, dtype=f"mixed_{half}")
    mixed.set_weights(network(name).get_weights())
    assert mixed.get_layer("stem_conv").compute_dtype == half
    assert mixed.get_layer("rescaling").compute_dtype == "float32"  # float16 has no room for pixels less their mean
    assert {variable.dtype for variable in mixed.weights} == {"float32"}
    probabilities = outputs(mixed)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(probabilities, outputs(network(name)), atol=0.05)


@every_network
def test_mixed_float16_compiles_with_loss_scaling(name):
    mixed, plain = build(name, dtype="mixed_float16"), build(name)
    for model in (mixed, plain):
        model.compile("sgd", "sparse_categorical_crossentropy")
    assert isinstance(mixed.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(plain.optimizer, keras.optimizers.LossScaleOptimizer)


@every_network
def test_feature_levels_are_the_last_block_of_each_size(name):
    size = 64
    model = build(name, include_top=False, input_shape=(size, size, 3))
    expected = {}
    for block in expand(scaled_down(name), image_size=size).blocks:
        side = block.output.out_size
        expected[f"P{(size // side).bit_length() - 1}"] = (side, side, block.output.out_channels)
    maps = features(model)(images(2, size))
    assert {level: tuple(value.shape[1:]) for level, value in maps.items()} == expected
    assert {id(weight) for weight in features(model).weights} <= {id(weight) for weight in model.weights}


@every_network
def test_a_new_head_keeps_the_features_and_the_old_network(name):
    old = network(name)
    before = outputs(old)
    new = swap_head(old, CLASSES + 2)
    pooled = [keras.Model(model.input, model.get_layer("avg_pool").output) for model in (old, new)]
    np.testing.assert_array_equal(*map(outputs, pooled))
    assert [layer.name for layer in new.layers] == [layer.name for layer in old.layers]
    assert new.output_shape == (None, CLASSES + 2)
    np.testing.assert_array_equal(outputs(old), before)


@networks(*KINDS, "v2-b0")
def test_the_float32_file_computes_what_the_network_does(name):
    model = build(name, classifier_activation=None)
    model.set_weights(network(name).get_weights())
    with captured_output():
        content = convert(model)
    relative(TFLiteModel(content).predict(images()), outputs(model), 2e-5)
