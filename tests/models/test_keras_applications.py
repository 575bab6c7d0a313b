"""Weights files for keras.applications: its networks load them and compute what ours do."""

import keras
import numpy as np
import pytest
from weight_files import answer, images, same_weights, scrambled, tiny

import keras_effnet
from keras_effnet import save_weights_for_keras_applications as save
from keras_effnet.errors import UserError

OPTIONS = {"weights": None, "classes": 10, "classifier_activation": None, "input_shape": (64, 64, 3)}


def like_trained(model, pixels):
    for layer in scrambled(model).layers:
        if isinstance(layer, keras.layers.Add):
            norm = model.get_layer(layer.name.replace("_add", "_project_bn"))
            norm.gamma.assign(norm.gamma * 0.1)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(pixels, training=True)
    return model


@pytest.mark.parametrize("name", ["B0", pytest.param("V2B0", marks=pytest.mark.slow)])
def test_keras_applications_loads_the_file_and_gives_our_logits(name, tmp_path):
    ours, pixels = getattr(keras_effnet, f"EfficientNet{name}")(**OPTIONS), images(size=64)
    save(like_trained(ours, pixels), tmp_path / "ours.weights.h5")
    theirs = getattr(keras.applications, f"EfficientNet{name}")(**OPTIONS)
    theirs.load_weights(tmp_path / "ours.weights.h5")
    for layer in ours.layers:
        assert not layer.weights or same_weights(layer.get_weights(), theirs.get_layer(layer.name).get_weights())
    # Both normalise pixels in their own way, and random weights make much of the last bit.
    expected = answer(ours, pixels)
    np.testing.assert_allclose(answer(theirs, pixels), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_network_without_counterpart_and_a_file_of_another_kind_are_refused(tmp_path):
    model = tiny()
    with pytest.raises(UserError, match=r"no network with the layers of efficientnetb0-d0.2w0.25r1; it has b0, b1"):
        save(model, tmp_path / "x.weights.h5")
    with pytest.raises(UserError, match=r"path must end in \.weights\.h5, got x\.keras"):
        save(model, tmp_path / "x.keras")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "symmetric"}, "its weights would compute other features"),
        ({"bn_epsilon": 1e-5}, "its weights would compute other features"),
    ],
)
def test_a_network_that_computes_something_else_is_refused(options, message, tmp_path):
    model = keras_effnet.EfficientNetB0(weights=None, include_top=False, **options)
    with pytest.raises(UserError, match=message):
        save(model, tmp_path / "x.weights.h5")


@pytest.mark.slow
def test_a_head_of_ones_own_is_named(tmp_path):
    base = keras_effnet.EfficientNetB0(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    model = keras.Model(base.input, keras.layers.Dense(3, name="mine")(base.output))
    with pytest.raises(UserError, match="do not both have mine"):
        save(model, tmp_path / "x.weights.h5")
