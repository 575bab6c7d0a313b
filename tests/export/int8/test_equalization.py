"""Swish equalization: exact in float, more accurate in int8."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_effnet
from keras_effnet.errors import UserError
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.int8 import equalization
from keras_effnet.export.int8.range_fitting import ActivationFit, Channels
from keras_effnet.export.recipes import PRECISIONS, Settings

SIDE = 32


def scaled(model, images):
    """The model with scaled swishes, and their factors."""
    graph = FloatGraph(model, images)
    factors = equalization.choose_factors(ActivationFit(graph.content, graph.images), model)
    return equalization.equalize(model, factors), list(factors.values())


def factors_of(samples):
    """The factors of a tensor whose channels are equally important."""
    seen = Channels(samples.astype("float32"), samples.min(axis=0), samples.max(axis=0))
    return equalization._choose(seen, np.ones(samples.shape[1]))


def uneven_network(**options):
    """A small swish network whose batch normalization gains differ a hundredfold, as trained ones do."""
    model = keras_effnet.EfficientNet(
        keras_effnet.architecture_spec("b0", depth=0.3, width=0.3), classes=7, input_shape=(SIDE, SIDE, 3), **options
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape[0]
            layer.set_weights(
                [
                    10 ** rng.uniform(-1, 1, size),
                    rng.normal(0, 1, size),
                    rng.normal(0, 0.1, size),
                    rng.uniform(0.5, 2, size),
                ]
            )
    return model


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    coarse = rng.uniform(0, 255, (12, 4, 4, 3))
    return coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2).astype("float32")


@pytest.fixture(scope="module")
def uneven(images):
    """The network, the one with scaled swishes, and their factors."""
    model = uneven_network(classifier_activation=None)
    return model, *scaled(model, images)


def test_equalizing_changes_nothing_in_float(uneven, images):
    model, equalized, swishes = uneven
    expected, got = model.predict(images, verbose=0), equalized.predict(images, verbose=0)
    assert np.ptp(np.concatenate([swish.scale for swish in swishes])) > 1, "nothing was scaled"
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_every_swish_behind_a_batch_norm_is_scaled(uneven):
    model, _, swishes = uneven
    norms = [layer for layer in model.layers if layer.name.endswith("_bn") and "project" not in layer.name]
    assert len(swishes) == len(norms)


def test_relu6_network_is_left_alone():
    model = keras_effnet.EfficientNet("lite0", classes=2, input_shape=(SIDE, SIDE, 3))
    assert not equalization.scalable(model)


def test_a_network_without_a_swish_to_scale_is_told_to_use_fitted_ranges(images):
    source = ExportSource(keras_effnet.EfficientNet("lite0", classes=2, input_shape=(SIDE, SIDE, 3)), images)
    with pytest.raises(UserError, match=r"has no swish .* that can be scaled: use method='fitted'"):
        next(PRECISIONS["int8"].candidates(source, Settings(method="equalized")))


def test_a_swish_seen_by_an_addition_is_left_alone():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(inputs))
    x = keras.layers.Activation("swish")(x)
    y = keras.layers.Conv2D(4, 1)(x)
    model = keras.Model(inputs, keras.layers.Add()([x, y]))
    _, swishes = scaled(model, np.zeros((2, 8, 8, 3), "float32"))
    assert swishes == []


def convolved(x, filters=4, **options):
    return layers.BatchNormalization(**options)(layers.Conv2D(filters, 1)(x))


def swish(x):
    return layers.Activation("swish")(x)


def norms_without_gain_or_offset(x):
    return layers.Conv2D(3, 1)(swish(convolved(swish(convolved(x, scale=False)), center=False)))


def a_norm_that_an_addition_sees(x):
    norm = convolved(x)
    return layers.Add()([layers.Conv2D(4, 1)(swish(norm)), norm])


def a_swish_that_is_an_output(x):
    x = swish(convolved(x))
    return [layers.Conv2D(3, 1)(x), layers.GlobalAveragePooling2D()(x)]


def a_norm_that_is_an_output(x):
    x = convolved(x)
    return [layers.Conv2D(3, 1)(swish(x)), x]


def a_block_that_is_called_twice(x):
    block = [layers.Conv2D(3, 1), layers.BatchNormalization(), layers.Activation("swish")]
    for layer in 2 * block:
        x = layer(x)
    return layers.Conv2D(3, 1)(x)


def a_reader_that_is_called_twice(x):
    reader = layers.Conv2D(3, 1)
    return layers.Add()([reader(swish(convolved(x))), reader(layers.Conv2D(4, 1)(x))])


def a_swish_that_is_squared(x):
    x = swish(convolved(x))
    return layers.Conv2D(3, 1)(layers.Multiply()([x, x]))


def a_swish_in_its_own_gate(x):
    x = swish(convolved(x))
    return layers.Conv2D(3, 1)(layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)]))


def groups(x):
    return layers.Conv2D(4, 1, groups=2)(swish(convolved(x)))


def rows(x):
    return layers.Conv2D(3, 1)(swish(convolved(x, filters=8, axis=1)))


@pytest.mark.parametrize(
    ("connect", "scaled_swishes"),
    [
        (norms_without_gain_or_offset, 2),
        (a_norm_that_an_addition_sees, 0),
        (a_swish_that_is_an_output, 0),
        (a_norm_that_is_an_output, 0),
        (a_block_that_is_called_twice, 0),
        (a_reader_that_is_called_twice, 0),
        (a_swish_that_is_squared, 0),
        (a_swish_in_its_own_gate, 1),
        (groups, 0),
        (rows, 0),
    ],
)
def test_only_what_nothing_else_sees_is_scaled(connect, scaled_swishes):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, connect(image))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, each.shape) for each in model.weights])
    factors = {
        name: equalization.Equalization(rng.uniform(0.1, 9, 4).astype("float32"), 0.4, 0.0)
        for name in equalization._plan(model)
    }
    assert len(factors) == scaled_swishes
    assert equalization.normalizes_swishes(model) == (connect is not rows)  # which mixed files need
    images = rng.normal(0, 1, (2, 8, 8, 3)).astype("float32")
    expected, got = (keras.tree.flatten(each(images)) for each in (model, equalization.equalize(model, factors)))
    for wanted, found in zip(expected, got, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_small_channel_keeps_its_steps_beside_a_large_one():
    rng = np.random.default_rng(0)
    samples = np.stack([rng.normal(0, 40, 2000), rng.normal(0, 1, 2000)], axis=1)

    def swish(a):
        return a / (1 + np.exp(-np.clip(a, -60, 60)))

    step = np.ptp(samples) / 255  # what one step for the whole tensor costs the small channel
    plain = np.mean((swish(np.round(samples[:, 1] / step) * step) - swish(samples[:, 1])) ** 2)

    chosen = factors_of(samples)
    step = (1 + chosen.low) / 255
    u = np.clip(np.round(samples[:, 1] / chosen.scale[1] / step) * step, -chosen.low, 1)
    equalized = np.mean((swish(u * chosen.scale[1]) - swish(samples[:, 1])) ** 2)
    assert equalized < plain / 10


def test_factors_survive_eight_bits_per_tensor():
    samples = np.random.default_rng(0).normal(0, np.geomspace(0.5, 50, 16), (500, 16))
    scale = factors_of(samples).scale
    steps = scale / (scale.max() / 255)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_factors_that_make_a_kernel_coarse_are_drawn_together():
    rng = np.random.default_rng(2)
    samples = rng.normal(0, 1, (500, 8)) * np.geomspace(0.5, 200, 8)
    seen = Channels(samples.astype("float32"), samples.min(axis=0), samples.max(axis=0))

    def spread(kernel_error):
        scale = equalization._choose(seen, np.ones(8), kernel_error).scale
        return scale.max() / scale.min()

    harmless, harmful = spread(lambda scale: 0.0), spread(lambda scale: 1e9 * scale.max() / scale.min())
    assert harmless > 10 and harmful == pytest.approx(1)
