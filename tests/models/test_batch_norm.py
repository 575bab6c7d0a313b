"""Batch normalization by TensorFlow's fused kernel: Keras' numbers, and no trace of it outside its block."""

import copy
import os
import pickle
import subprocess
import sys
from contextlib import nullcontext

import keras
import numpy as np
import pytest

import keras_effnet
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.models.batch_norm import fused_batch_norm
from keras_effnet.training.loop import train
from keras_effnet.transfer import reestimate_batch_norm

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
SHAPE = (5, 4, 3, 6)  # batch, height, width, channels
KERNEL = "FusedBatchNormV3"


def normalizing(dtype="float32", **options):
    """One layer as a model, with weights and moving statistics other than the initial ones."""
    inputs = keras.Input(SHAPE[1:], dtype=dtype if dtype.startswith("float") else None)
    layer = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3, dtype=dtype, name="bn", **options)
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    return model


def classifier(model_class=keras.Model):
    """Two normalized convolutions and a classifier, always with the same weights."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    for number in range(2):
        x = keras.layers.Conv2D(4, 3)(x)
        x = keras.layers.BatchNormalization(momentum=0.8, name=f"bn{number}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return model_class(image, keras.layers.Dense(3, activation="softmax")(x))


def images(seed=1, shape=SHAPE):
    """A mean far above the spread, so that formulas that subtract large squares lose their digits."""
    return np.random.default_rng(seed).normal(30, 2, shape).astype("float32")


def gradients(model, batch):
    """Of a loss that weighs every output differently, by the input and both weights."""
    import tensorflow as tf

    batch = tf.constant(batch)
    factors = tf.constant(np.random.default_rng(2).normal(size=batch.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(batch)
        loss = tf.reduce_sum(factors * model(batch, training=True) ** 2)
    return [each.numpy() for each in tape.gradient(loss, [batch, *(w.value for w in model.trainable_variables)])]


def operations(model):
    """Types of the operations of a training step that is traced now."""
    import tensorflow as tf

    graph = tf.function(lambda batch: model(batch, training=True)).get_concrete_function(
        tf.TensorSpec((None, *model.input_shape[1:]), model.inputs[0].dtype)
    )
    return {operation.type for operation in graph.graph.get_operations()}


def assert_close(ours, theirs, **tolerance):
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, other, **tolerance)


# ------------------------------------------------------------------ what the kernel computes


@tensorflow_only
@pytest.mark.parametrize("options", [{}, {"axis": 3}])
def test_the_kernel_computes_what_keras_computes(options):
    batch = images()
    theirs, ours = normalizing(**options), normalizing(**options)
    expected = theirs(batch, training=True)
    assert KERNEL not in operations(theirs)
    with fused_batch_norm(ours):
        np.testing.assert_allclose(ours(batch, training=True), expected, atol=2e-5)
        assert_close(ours.get_weights(), theirs.get_weights(), rtol=1e-5)  # moving statistics included
        assert KERNEL in operations(ours)
        own = gradients(ours, batch)
    assert_close(own, gradients(theirs, batch), rtol=1e-4, atol=1e-4)


@tensorflow_only
def test_moving_variance_averages_the_biased_variance():
    model, batch = normalizing(), images()
    before = model.get_layer("bn").moving_variance.numpy()
    with fused_batch_norm(model):
        model(batch, training=True)
    expected = 0.8 * before + 0.2 * batch.var(axis=(0, 1, 2))
    np.testing.assert_allclose(model.get_layer("bn").moving_variance.numpy(), expected, rtol=1e-5)


@tensorflow_only
def test_a_single_position_has_no_variance():
    inputs = keras.Input((1, 1, 6))
    model = keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.5)(inputs))
    with fused_batch_norm(model):
        model(images(shape=(1, 1, 1, 6)), training=True)
    np.testing.assert_array_equal(model.layers[-1].moving_variance.numpy(), np.full(6, 0.5))


@tensorflow_only
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_under_mixed_precision_statistics_are_measured_in_float32(dtype):
    batch = images()
    theirs, ours = normalizing(dtype), normalizing(dtype)
    with fused_batch_norm(ours):
        own, other = ours(batch, training=True), theirs(batch, training=True)
    assert own.dtype == other.dtype == ours.get_layer("bn").compute_dtype
    step = 2**-7 if dtype == "mixed_bfloat16" else 2**-10
    np.testing.assert_allclose(np.asarray(own, "float32"), np.asarray(other, "float32"), atol=8 * step)
    assert_close(ours.get_weights(), theirs.get_weights(), rtol=2 * step)


def test_options_that_the_kernel_lacks_compute_as_keras_does():
    names = set(keras.layers.BatchNormalization().get_config())
    cases = [{"center": False}, {"scale": False}, {"axis": 1}, {"renorm": True}, {"synchronized": True}]
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the kernel is TensorFlow's")
    for options in cases:
        if not options.keys() <= names:
            continue  # `renorm` is new in Keras 3.15
        ours, theirs = normalizing(**options), normalizing(**options)
        with fused_batch_norm(ours):
            assert KERNEL not in operations(ours), options
            np.testing.assert_array_equal(ours(images(), training=True), theirs(images(), training=True))


@tensorflow_only
def test_masks_vectors_and_float64_compute_as_keras_does():
    ours = normalizing()
    mask = np.arange(5 * 4 * 3).reshape(5, 4, 3) % 2 == 0
    expected = normalizing().get_layer("bn")(images(), training=True, mask=mask)
    with fused_batch_norm(ours):
        np.testing.assert_array_equal(ours.get_layer("bn")(images(), training=True, mask=mask), expected)
    for inputs in (keras.Input((6,)), keras.Input((3, 4, 6), dtype="float64")):
        dtype = "float64" if len(inputs.shape) == 4 else "float32"
        model = keras.Model(inputs, keras.layers.BatchNormalization(dtype=dtype)(inputs))
        with fused_batch_norm(model):
            assert KERNEL not in operations(model)


@tensorflow_only
def test_frozen_and_in_inference_moving_statistics_are_used():
    model, batch = normalizing(), images()
    expected = normalizing()(batch, training=False)
    with fused_batch_norm(model):
        np.testing.assert_array_equal(model(batch, training=False), expected)
        model.get_layer("bn").trainable = False
        before = model.get_weights()
        np.testing.assert_array_equal(model(batch, training=True), expected)
    assert_close(model.get_weights(), before, rtol=0)


# ------------------------------------------------------------------ ways to train


class CustomStep(keras.Model):
    """A model with a training step of its own."""

    def train_step(self, data):
        import tensorflow as tf

        batch, labels = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=batch, y=labels, y_pred=self(batch, training=True))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


@tensorflow_only
@pytest.mark.parametrize(
    ("model_class", "options"),
    [
        (keras.Model, {}),
        (keras.Model, {"jit_compile": True}),
        (keras.Model, {"run_eagerly": True}),
        (keras.Model, {"steps_per_execution": 2}),
        (CustomStep, {}),
        (CustomStep, {"jit_compile": True}),
    ],
)
def test_training_ends_at_the_same_weights(model_class, options, batches):
    weights = []
    for block in (fused_batch_norm, nullcontext):
        model = classifier(model_class)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **options)
        with block(model):
            model.fit(batches, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert_close(*weights, rtol=1e-3, atol=1e-5)


MIRRORED = """
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from contextlib import nullcontext

import keras
import numpy as np
from test_batch_norm import assert_close, classifier, fused_batch_norm

rng = np.random.default_rng(0)
data = tf.data.Dataset.from_tensor_slices((rng.uniform(0, 255, (32, 8, 8, 3)), np.arange(32) % 3)).batch(8)
weights = []
for block in (fused_batch_norm, nullcontext):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = classifier()
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        with block(model):
            model.fit(data, epochs=2, shuffle=False, verbose=0)
    weights.append(model.get_weights())
assert_close(*weights, rtol=1e-3, atol=1e-5)
"""


@pytest.mark.slow
@tensorflow_only
def test_training_on_two_devices_ends_at_the_same_weights():
    from pathlib import Path

    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


class Watch(keras.callbacks.Callback):
    """Calls a function with the model after every epoch and keeps the results."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.function(self.model))


@tensorflow_only
def test_train_uses_the_kernel_and_leaves_a_plain_model(batches):
    model, watch = classifier(), Watch(operations)
    config = TrainConfig(epochs=1, warmup_epochs=0, batch_size=8)
    train(model, batches, batches, config, callbacks=[watch])
    assert KERNEL in watch.seen[0]
    assert KERNEL not in operations(model)


@tensorflow_only
def test_nested_models_use_the_kernel():
    outer = keras.Sequential([keras.Input(SHAPE[1:]), normalizing()])
    with fused_batch_norm(outer):
        assert KERNEL in operations(outer)


@tensorflow_only
def test_reestimated_statistics_are_measured_with_the_kernel(monkeypatch):
    from keras_effnet.models import batch_norm

    calls, original = [], batch_norm._call
    monkeypatch.setattr(batch_norm, "_call", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    model, batch = normalizing(), images()
    model.train_function = kept = object()
    reestimate_batch_norm(model, [batch])
    assert calls
    assert model.train_function is kept  # it may run in a callback, while `fit` is using it
    np.testing.assert_allclose(model.get_layer("bn").moving_mean.numpy(), batch.mean(axis=(0, 1, 2)), rtol=1e-5)


# ------------------------------------------------------------------ what is left of it


def test_networks_are_plain_keras_when_built_and_reloaded(tmp_path):
    spec = keras_effnet.architecture_spec("b0", depth=0.2, width=0.25, image_size=32)
    model = keras_effnet.EfficientNet(spec, classes=3)
    path = tmp_path / "model.keras"
    model.save(path)
    for network in (model, keras_effnet.load_model(path)):
        norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert norms and {type(layer) for layer in norms} == {keras.layers.BatchNormalization}
        assert not any("call" in vars(layer) for layer in network.layers)
    batch = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    plain = keras.models.load_model(path, custom_objects={})
    np.testing.assert_array_equal(plain.predict(batch, verbose=0), model.predict(batch, verbose=0))
    assert plain.to_json() == model.to_json()


def clone(model):
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "clone_model": clone,
}


@tensorflow_only
@pytest.mark.parametrize("way", COPIES)
def test_copies_are_plain_keras_and_compute_the_same(way, batches):
    model, watch = classifier(), Watch(COPIES[way])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    with fused_batch_norm(model):
        model.fit(batches, callbacks=[watch], shuffle=False, verbose=0)
    copies = [*watch.seen, COPIES[way](model)]
    batch = next(iter(batches))[0].numpy()
    expected, expected_in_training = model(batch), model(batch, training=True)
    for copied in copies:
        assert {"bn0", "bn1"} < {layer.name for layer in copied.layers}
        assert not any("call" in vars(layer) for layer in copied.layers)
        assert KERNEL not in operations(copied)
        np.testing.assert_allclose(copied(batch), expected, rtol=1e-6)
        np.testing.assert_allclose(copied(batch, training=True), expected_in_training, rtol=1e-6)


@tensorflow_only
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copied_layers_are_plain_keras(way):
    model = normalizing()
    with fused_batch_norm(model):
        copied = COPIES[way](model.get_layer("bn"))
    assert type(copied) is keras.layers.BatchNormalization
    assert "call" not in vars(copied)
    np.testing.assert_allclose(copied(images(), training=True), model(images(), training=True), rtol=1e-5)


@tensorflow_only
def test_checkpoints_of_a_callback_open_in_plain_keras_and_train_on(batches, tmp_path):
    path = tmp_path / "checkpoint.keras"
    model = classifier()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    with fused_batch_norm(model):
        model.fit(batches, callbacks=[keras.callbacks.ModelCheckpoint(path)], shuffle=False, verbose=0)
    plain = keras.models.load_model(path, custom_objects={})
    assert KERNEL not in operations(plain)
    assert_close(plain.get_weights(), model.get_weights(), rtol=0)
    for network in (plain, model):
        network.fit(batches, verbose=0, shuffle=False)
    assert_close(plain.get_weights(), model.get_weights(), rtol=0)  # outside the block both are plain


@tensorflow_only
def test_an_error_inside_restores_the_layers():
    model = normalizing()
    with pytest.raises(KeyboardInterrupt), fused_batch_norm(model):
        raise KeyboardInterrupt
    assert KERNEL not in operations(model)


@tensorflow_only
def test_no_training_step_outlives_the_block(batches):
    model = classifier()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.fit(batches, shuffle=False, verbose=0)
    before = model.train_function
    with fused_batch_norm(model):
        assert model.train_function is None  # else the plain step would go on being used
        model.fit(batches, shuffle=False, verbose=0)
        inside = model.train_function
    assert before is not inside is not None
    assert model.train_function is None
    model.fit(batches, shuffle=False, verbose=0)
    assert model.train_function not in (before, inside)


@tensorflow_only
def test_a_block_within_a_block_leaves_the_outer_one_alone(batches):
    model = classifier()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    with fused_batch_norm(model):
        model.fit(batches, shuffle=False, verbose=0)
        step = model.train_function
        with fused_batch_norm(model):
            assert KERNEL in operations(model)
        assert KERNEL in operations(model)
        assert model.train_function is step
    assert KERNEL not in operations(model)


@tensorflow_only
def test_a_call_that_somebody_else_replaced_is_kept():
    model = normalizing()
    layer = model.get_layer("bn")
    layer.call = lambda inputs, training=None, mask=None: inputs
    with fused_batch_norm(model):
        np.testing.assert_array_equal(model(images(), training=True), images())
    np.testing.assert_array_equal(model(images(), training=True), images())


@tensorflow_only
def test_nothing_is_replaced_where_tensorflow_sees_a_gpu(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["GPU:0"] if kind == "GPU" else [])
    model = normalizing()
    model.train_function = kept = object()
    with fused_batch_norm(model):
        assert KERNEL not in operations(model)
    assert model.train_function is kept
