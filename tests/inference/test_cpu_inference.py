"""`frozen`: the outputs of a network, computed with batch normalization folded away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from keras_effnet.inference.cpu_inference import _folded_values, frozen

_LAYERS = keras.layers


def network(connect: Callable[[Any], Any]) -> keras.Model:
    """A network for images of any size, whose normalization is not the neutral one of a fresh layer."""
    image = keras.Input((None, None, 3))
    model = keras.Model(image, connect(image))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, _LAYERS.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2.0, each.shape) for each in layer.weights])
    return model


def chain(x):
    x = _LAYERS.Conv2D(4, 3, bias_initializer="normal")(x)
    x = _LAYERS.ReLU(6)(_LAYERS.BatchNormalization()(x))
    x = _LAYERS.BatchNormalization(scale=False)(_LAYERS.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x))
    return {"features": x, "mean": _LAYERS.GlobalAveragePooling2D()(x)}


def without_offset(x):
    return _LAYERS.BatchNormalization(center=False)(_LAYERS.Conv2D(4, 3)(x))


def seen_before_normalization(x):
    x = _LAYERS.Conv2D(4, 3)(x)
    return [x, _LAYERS.BatchNormalization()(x)]


def called_twice(x):
    convolution = _LAYERS.Conv2D(3, 3, padding="same")
    return convolution(_LAYERS.BatchNormalization()(convolution(x)))


def with_a_nested_network(x):
    inner = _LAYERS.Conv2D(3, 3, name="same", padding="same")
    nested = keras.Sequential([inner, _LAYERS.BatchNormalization(name="same_norm")])
    x = _LAYERS.BatchNormalization(name="same_norm")(_LAYERS.Conv2D(3, 3, name="same", padding="same")(x))
    return nested(x)


def half(x):
    return _LAYERS.BatchNormalization(dtype="mixed_bfloat16")(_LAYERS.Conv2D(4, 3, dtype="mixed_bfloat16")(x))


@pytest.mark.parametrize(
    ("connect", "folds"),
    [
        (chain, 2),
        (without_offset, 0),
        (seen_before_normalization, 0),
        (called_twice, None),
        (with_a_nested_network, 1),
        (half, 0),
    ],
)
def test_outputs_are_those_of_the_network_and_normalization_is_folded_where_it_may_be(connect, folds, smooth_images):
    model = network(connect)
    if folds is not None:
        assert sum(value.ndim > 1 for value in _folded_values(model).values()) == folds
    run = frozen(model)
    for count, size in ((3, 8), (1, 8), (2, 12)):
        images = smooth_images(count, size)  # bytes, as a pipeline may hand them over
        expected, got = model.predict_on_batch(images.astype("float32")), run(images)
        keras.tree.assert_same_structure(expected, got)
        for one, other in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())
