"""`fold_batch_norms`: the same function, with no batch normalization where a convolution can do its work."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet, architecture_spec
from keras_effnet.export.conversion.folding import fold_batch_norms


def lived_in(model: keras.Model) -> keras.Model:
    """Batch normalization as after training; fresh layers would fold to almost nothing."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = {variable.name: variable.shape for variable in layer.weights}
            around = {"gamma": (0.5, 2.0), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.3, 2)}
            layer.set_weights([rng.uniform(*around[name], shape) for name, shape in shapes.items()])
    return model


def norms(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def assert_same_answers(one: keras.Model, other: keras.Model, images: np.ndarray) -> None:
    expected, got = (keras.ops.convert_to_numpy(model(images)) for model in (one, other))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["b0", "lite0", "resnet18"])
def test_a_folded_network_gives_the_same_logits_without_batch_normalization(name, smooth_images):
    keras.utils.set_random_seed(0)
    spec = architecture_spec(name, depth=0.2, width=0.25, image_size=32)
    model = lived_in(EfficientNet(spec, weights=None, classes=5, classifier_activation=None, input_shape=(32, 32, 3)))
    folded = fold_batch_norms(model)
    assert norms(model) and not norms(folded)
    assert [layer.name for layer in folded.layers][1:3] == ["rescaling", "stem_conv"]
    assert_same_answers(model, folded, smooth_images(4, 32).astype("float32"))


def toy(connect) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(connect(image))
    return lived_in(keras.Model(image, keras.layers.Dense(3)(x)))


def test_a_convolution_with_a_bias_and_a_norm_without_gain_or_offset_are_folded(smooth_images):
    def connect(x):
        x = keras.layers.Conv2D(4, 3, bias_initializer="normal")(x)
        x = keras.layers.BatchNormalization(scale=False)(x)
        x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, bias_initializer="normal")(x)
        return keras.layers.BatchNormalization(center=False)(x)

    model = toy(connect)
    folded = fold_batch_norms(model)
    assert not norms(folded)
    assert_same_answers(model, folded, smooth_images(4, 8) / 255)


def shared(x):
    x = keras.layers.Conv2D(3, 1)(x)
    return keras.layers.Add()([x, keras.layers.BatchNormalization()(x)])


def activated_first(x):
    return keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 1, activation="relu")(x))


def without_convolution(x):
    return keras.layers.BatchNormalization()(keras.layers.MaxPooling2D()(x))


def convolution_called_again(x):
    convolution = keras.layers.Conv2D(3, 3, padding="same")
    return convolution(keras.layers.BatchNormalization()(convolution(x)))


def norm_called_again(x):
    norm = keras.layers.BatchNormalization()
    return norm(keras.layers.Conv2D(4, 3)(norm(keras.layers.Conv2D(4, 3)(x))))


def norm_of_rows(x):
    return keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(8, 1)(x))


class Tripled(keras.layers.Conv2D):
    """A convolution of one's own, whose kernel is not all that it computes."""

    def call(self, inputs):
        return 3 * super().call(inputs)


def own_convolution(x):
    return keras.layers.BatchNormalization()(Tripled(3, 1, bias_initializer="ones")(x))


@pytest.mark.parametrize(
    "connect",
    [
        shared,
        activated_first,
        without_convolution,
        convolution_called_again,
        norm_called_again,
        norm_of_rows,
        own_convolution,
    ],
)
def test_a_norm_that_no_convolution_can_take_up_stays(connect, smooth_images):
    model = toy(connect)
    folded = fold_batch_norms(model)
    assert norms(folded) == norms(model)
    assert_same_answers(model, folded, smooth_images(4, 8) / 255)


def test_the_model_itself_is_left_as_it_is(smooth_images):
    model = toy(activated_first)
    before = [weight.copy() for weight in model.get_weights()]
    fold_batch_norms(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
