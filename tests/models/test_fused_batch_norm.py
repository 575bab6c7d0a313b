"""Batch normalization by TensorFlow's fused kernel: the same numbers, and layers that stay Keras' own."""

import keras
import numpy as np
import pytest

import keras_effnet
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.models.fused_batch_norm import fuse_batch_norm
from keras_effnet.training.run import train

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
SHAPE = (5, 4, 3, 6)  # batch, height, width, channels


def normalizing(fused, dtype="float32", **options):
    """One layer as a model, its weights and moving statistics no identity."""
    inputs = keras.Input(SHAPE[1:], dtype=dtype if dtype.startswith("float") else None)
    layer = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3, dtype=dtype, name="bn", **options)
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    return fuse_batch_norm(model) if fused else model


def random_images(seed=1, shape=SHAPE):
    """A mean far above the spread: formulas that subtract large squares would show."""
    return np.random.default_rng(seed).normal(30, 2, shape).astype("float32")


def gradients(model, images):
    """Of a loss that weighs every output differently, by the input and both weights."""
    import tensorflow as tf

    images = tf.constant(images)
    factors = tf.constant(np.random.default_rng(2).normal(size=images.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(factors * model(images, training=True) ** 2)
    return [each.numpy() for each in tape.gradient(loss, [images, *(w.value for w in model.trainable_variables)])]


def operations(model):
    import tensorflow as tf

    graph = tf.function(lambda images: model(images, training=True)).get_concrete_function(
        tf.TensorSpec((None, *model.input_shape[1:]), model.inputs[0].dtype)
    )
    return {operation.type for operation in graph.graph.get_operations()}


@tensorflow_only
@pytest.mark.parametrize("options", [{}, {"axis": 3}])
def test_fused_is_what_keras_computes(options):
    images = random_images()
    theirs, ours = normalizing(False, **options), normalizing(True, **options)
    assert "FusedBatchNormV3" in operations(ours)
    assert "FusedBatchNormV3" not in operations(theirs)
    np.testing.assert_allclose(ours(images, training=True), theirs(images, training=True), atol=2e-5)
    for own, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):  # moving statistics, too
        np.testing.assert_allclose(own, other, rtol=1e-5)
    for own, other in zip(gradients(ours, images), gradients(theirs, images), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


@tensorflow_only
def test_the_variance_of_a_batch_is_not_the_unbiased_one():
    model = normalizing(True)
    images = random_images()
    before = model.get_layer("bn").moving_variance.numpy()
    model(images, training=True)
    expected = 0.8 * before + 0.2 * images.var(axis=(0, 1, 2))
    np.testing.assert_allclose(model.get_layer("bn").moving_variance.numpy(), expected, rtol=1e-5)


@tensorflow_only
def test_a_single_position_has_no_variance():
    inputs = keras.Input((1, 1, 6))
    model = fuse_batch_norm(keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.5)(inputs)))
    model(random_images(shape=(1, 1, 1, 6)), training=True)
    np.testing.assert_array_equal(model.layers[-1].moving_variance.numpy(), np.full(6, 0.5))


@tensorflow_only
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_under_mixed_precision_statistics_are_measured_in_float32(dtype):
    images = random_images()
    theirs, ours = normalizing(False, dtype), normalizing(True, dtype)
    own, other = ours(images, training=True), theirs(images, training=True)
    assert own.dtype == other.dtype == ours.get_layer("bn").compute_dtype
    step = 2**-7 if dtype == "mixed_bfloat16" else 2**-10
    np.testing.assert_allclose(np.asarray(own, "float32"), np.asarray(other, "float32"), atol=8 * step)
    for own, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=2 * step)


@tensorflow_only
@pytest.mark.parametrize(
    "options", [{"center": False}, {"scale": False}, {"axis": 1}, {"renorm": True}, {"synchronized": True}]
)
def test_what_the_kernel_cannot_do_is_left_to_keras(options):
    ours, theirs = normalizing(True, **options), normalizing(False, **options)
    assert "FusedBatchNormV3" not in operations(ours)
    np.testing.assert_array_equal(ours(random_images(), training=True), theirs(random_images(), training=True))


@tensorflow_only
def test_a_mask_vectors_and_float64_are_left_to_keras():
    layer = normalizing(True).get_layer("bn")
    mask = np.arange(5 * 4 * 3).reshape(5, 4, 3) % 2 == 0
    expected = keras.layers.BatchNormalization.call(normalizing(False).get_layer("bn"), random_images(), True, mask)
    np.testing.assert_array_equal(layer(random_images(), training=True, mask=mask), expected)
    for inputs in (keras.Input((6,)), keras.Input((3, 4, 6), dtype="float64")):
        dtype = "float64" if len(inputs.shape) == 4 else "float32"
        model = fuse_batch_norm(keras.Model(inputs, keras.layers.BatchNormalization(dtype=dtype)(inputs)))
        assert "FusedBatchNormV3" not in operations(model)


@tensorflow_only
def test_frozen_and_in_inference_the_moving_statistics_count():
    model, images = normalizing(True), random_images()
    expected = normalizing(False)(images, training=False)
    np.testing.assert_array_equal(model(images, training=False), expected)
    model.get_layer("bn").trainable = False
    before = model.get_weights()
    np.testing.assert_array_equal(model(images, training=True), expected)
    for own, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, other)


def test_layers_stay_keras_own_and_files_open_without_the_package(tmp_path):
    model = keras_effnet.EfficientNet(phi=-3, classes=3, input_shape=(32, 32, 3))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and {type(layer) for layer in norms} == {keras.layers.BatchNormalization}
    path = tmp_path / "model.keras"
    model.save(path)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    plain = keras.models.load_model(path, custom_objects={})
    np.testing.assert_array_equal(plain.predict(images, verbose=0), model.predict(images, verbose=0))
    assert plain.to_json() == model.to_json()


@tensorflow_only
def test_networks_are_fused_when_built_reloaded_and_nested(tmp_path):
    model = keras_effnet.EfficientNet(phi=-3, classes=3, input_shape=(32, 32, 3))
    assert "FusedBatchNormV3" in operations(model)
    model.save(tmp_path / "model.keras")
    assert "FusedBatchNormV3" not in operations(keras.models.load_model(tmp_path / "model.keras"))
    assert "FusedBatchNormV3" in operations(keras_effnet.load_model(tmp_path / "model.keras"))
    outer = keras.Sequential([keras.Input(SHAPE[1:]), normalizing(False)])
    assert "FusedBatchNormV3" in operations(fuse_batch_norm(outer))


@tensorflow_only
def test_training_fuses_a_network_that_keras_built(batches):
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    assert "FusedBatchNormV3" not in operations(model)
    train(model, batches, batches, TrainConfig(epochs=1, warmup_epochs=0, batch_size=8))
    assert "FusedBatchNormV3" in operations(model)
