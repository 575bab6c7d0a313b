"""Faster gradients of swish and wide depthwise filters: Keras' numbers, and no trace of them outside their block."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.training.cpu_kernels.gradients import fused_gradients

SHAPE = (3, 9, 8, 16)  # batch, height, width, channels


def network(*layers, shape=SHAPE[1:]):
    keras.utils.set_random_seed(0)
    image = keras.Input(shape)
    x = image
    for layer in layers:
        x = layer(x)
    return keras.Model(image, x)


def depthwise(kernel=5, **options):
    return keras.layers.DepthwiseConv2D(kernel, **{"padding": "same", "use_bias": False} | options)


def step_of(model, shape):
    """Gradients by the input and all weights of a loss that weighs every output differently, traced now."""
    rng = np.random.default_rng(1)
    batch = tf.constant(rng.normal(0, 3, shape), tf.float32)
    outputs = model.compute_output_shape(shape)
    factors = tf.constant(rng.normal(size=outputs), tf.float32)

    @tf.function(autograph=False)
    def step(batch):
        with tf.GradientTape() as tape:
            tape.watch(batch)
            loss = tf.reduce_sum(factors * tf.cast(model(batch, training=True), tf.float32))
        return tape.gradient(loss, [batch, *(weight.value for weight in model.trainable_variables)])

    gradients = [each.numpy() for each in step(batch)]
    graph = step.get_concrete_function(batch).graph.as_graph_def()
    nodes = [node for part in (graph.node, *(each.node_def for each in graph.library.function)) for node in part]
    return gradients, nodes


def is_faster(nodes):
    """Whether any gradient of a traced step is one of the kernels."""
    explicit = [n for n in nodes if n.op.endswith("BackpropFilter") and n.attr["padding"].s == b"EXPLICIT"]
    return bool(explicit) or any("_XlaMustCompile" in node.attr and node.attr["_XlaMustCompile"].b for node in nodes)


COVERED = {
    "swish": lambda: keras.layers.Activation("swish"),
    "5 x 5": depthwise,
    "strided, odd and even sides": lambda: depthwise(strides=2),
    "valid": lambda: depthwise(padding="valid"),
    "3 x 7": lambda: depthwise((3, 7)),
}


@pytest.mark.parametrize("make", COVERED.values(), ids=COVERED)
def test_gradients_are_those_of_keras(make):
    model = network(make())
    expected, plain = step_of(model, SHAPE)
    with fused_gradients(model):
        got, nodes = step_of(model, SHAPE)
    assert is_faster(nodes) and not is_faster(plain)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


class Shifted(keras.layers.Activation):
    """An activation that computes something else."""

    def call(self, inputs):
        return super().call(inputs) + inputs


OTHER = {
    "another activation": lambda: keras.layers.Activation("relu"),
    "half precision": lambda: keras.layers.Activation("swish", dtype="mixed_bfloat16"),
    "a subclass": lambda: Shifted("swish"),
    "3 x 3": lambda: depthwise(3),
    "with a bias": lambda: depthwise(use_bias=True),
    "dilated": lambda: depthwise(dilation_rate=2),
    "several filters a channel": lambda: depthwise(depth_multiplier=2),
}


@pytest.mark.parametrize("make", OTHER.values(), ids=OTHER)
def test_other_layers_compute_as_keras_does(make):
    model = network(make())
    expected, _ = step_of(model, SHAPE)
    with fused_gradients(model):
        got, nodes = step_of(model, SHAPE)
    assert not is_faster(nodes)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_single_pixels_and_vectors_compute_as_keras_does():
    for shape in ((1, 1, 4), (4,)):
        model = network(keras.layers.Activation("swish"), shape=shape)
        with fused_gradients(model):
            assert not is_faster(step_of(model, (2, *shape))[1])


def test_images_of_any_size_compute_as_keras_does():
    model = network(keras.layers.Activation("swish"), depthwise(), shape=(None, None, 4))
    with fused_gradients(model):
        traced = tf.function(lambda batch: model(batch)).get_concrete_function(tf.TensorSpec((None, None, None, 4)))
        assert traced(tf.zeros((1, 7, 6, 4))).shape == (1, 7, 6, 4)


def test_nothing_outlives_the_block(tmp_path):
    model = network(keras.layers.Activation("swish"), depthwise())
    before = [set(vars(layer)) for layer in model.layers]
    with pytest.raises(KeyError), fused_gradients(model):
        assert "call" in vars(model.layers[1])
        model.save(tmp_path / "inside.keras")
        raise KeyError
    assert [set(vars(layer)) for layer in model.layers] == before
    opened = keras.models.load_model(tmp_path / "inside.keras")
    assert [type(layer) for layer in opened.layers] == [type(layer) for layer in model.layers]
    assert not is_faster(step_of(opened, SHAPE)[1])


def test_a_strategy_and_jit_compile_compute_as_keras_does():
    model = network(keras.layers.Activation("swish"))
    model.compile("sgd", "mse", jit_compile=True)
    with fused_gradients(model):
        assert "call" not in vars(model.layers[1])
    model.compile("sgd", "mse")
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope(), fused_gradients(model):
        assert "call" not in vars(model.layers[1])


def test_another_batch_size_and_second_derivatives_work():
    model = network(keras.layers.Activation("swish"), shape=(2, 2, 1))
    with fused_gradients(model):
        for count in (2, 3):
            x = tf.constant(np.linspace(-3, 3, 4 * count, dtype="float32").reshape(count, 2, 2, 1))
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = model(x)
                slope = inner.gradient(y, x)
            gate = tf.sigmoid(x)
            expected = gate * (1 - gate) * (2 + x * (1 - 2 * gate))
            np.testing.assert_allclose(outer.gradient(slope, x), expected, atol=1e-5)
