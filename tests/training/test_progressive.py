"""Progressive resizing: image size and strength of each epoch, resumed runs, and the final file."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_network import TINY

from keras_effnet.config.resizing import ResizeStage
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.training import input_pipelines, loop
from keras_effnet.training.checkpoints import BEST, read_rows
from keras_effnet.training.loop import train
from keras_effnet.training.run import train_dataset
from keras_effnet.training.watchers import Pause

CONFIG = TrainConfig(
    model="lite0",
    image_size=64,
    epochs=6,
    progressive="32,48,64",
    learning_rate=0.01,
    warmup_epochs=0.5,
    batch_size=8,
    dropout_rate=0.4,
)
STEPS = 3


def any_size_model() -> keras.Model:
    """A small classifier for images of all sizes, with dropout and with stochastic depth."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(x)
    x = keras.layers.Add()([x, keras.layers.Dropout(0.2, noise_shape=(None, 1, 1, 1))(x)])
    x = keras.layers.Dropout(0.4, name="top_dropout")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


@pytest.fixture
def staged(smooth_images):
    """Function from a `ResizeStage` to its batches, which depend on the epoch's number alone."""
    originals, labels = smooth_images(8 * STEPS, 64).astype("float32"), np.arange(8 * STEPS) % 3

    def batches(stage: ResizeStage) -> tf.data.Dataset:
        images = tf.image.resize(originals, (stage.image_size,) * 2)
        epoch = tf.data.Dataset.from_tensor_slices((images, labels.astype("int32"))).batch(8)
        return (
            tf.data.Dataset.range(stage.first, stage.last)
            .flat_map(lambda number: epoch.map(lambda images, labels: (images + tf.cast(number, tf.float32), labels)))
            .apply(tf.data.experimental.assert_cardinality(STEPS * (stage.last - stage.first)))
        )

    return batches


class Spy(keras.callbacks.Callback):
    """The epoch, the sides of its images and the rates of dropout at the first batch of each epoch."""

    def __init__(self, stop: int | None = None):
        super().__init__()
        self.stop, self.seen, self.rates, self.sides = stop, [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.stop:
            raise KeyboardInterrupt
        self.seen.append(epoch)
        self.rates.append([layer.rate for layer in self.model.layers if isinstance(layer, keras.layers.Dropout)])


def spied(batches, spy: Spy):
    """The same batches; the sides of those that training takes are noted."""

    def note(images, labels):
        with tf.control_dependencies(
            [tf.numpy_function(lambda side: spy.sides.append(int(side)), [tf.shape(images)[1]], [])]
        ):
            return tf.identity(images), labels

    return lambda stage: batches(stage).map(note)


def test_every_epoch_sees_images_of_its_size_and_dropout_grows_with_them(staged):
    spy = Spy()
    val = staged(ResizeStage(0, 1, 64))
    history = train(any_size_model(), spied(staged, spy), val, CONFIG, callbacks=[spy])
    assert history.epoch == spy.seen == list(range(6))
    assert spy.sides == [32] * 2 * STEPS + [48] * 2 * STEPS + [64] * 2 * STEPS
    stochastic_depth, dropout = zip(*spy.rates, strict=True)
    assert dropout == pytest.approx([0.2, 0.2, 0.3, 0.3, 0.4, 0.4])
    assert set(stochastic_depth) == {0.2}
    assert all(len(values) == 6 for values in history.history.values())


def test_the_dropout_of_a_stage_is_the_one_that_is_computed(staged, monkeypatch):
    # All or nothing: at a rate of next to one in the first stage the kernel before the dropout would not move.
    monkeypatch.setattr(loop, "_set_dropout", _closed_in_the_first_stage(loop._set_dropout))

    class Kernels(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.kernels = []

        def on_epoch_end(self, epoch, logs=None):
            self.kernels.append(self.model.layers[2].kernel.numpy())

    kernels = Kernels()
    config = replace(CONFIG, weight_decay=0.0)
    train(any_size_model(), staged, staged(ResizeStage(0, 1, 64)), config, callbacks=[kernels])
    moved = [np.abs(b - a).max() > 1e-6 for a, b in zip(kernels.kernels, kernels.kernels[1:], strict=False)]
    assert moved == [False, True, True, True, True]


def _closed_in_the_first_stage(original):
    def set_dropout(model, config, strength):
        original(model, config, strength)
        if strength == 0.5:
            model.get_layer("top_dropout").rate = 1 - 1e-7

    return set_dropout


@pytest.mark.parametrize("stop", [3, pytest.param(4, marks=pytest.mark.slow)], ids=["middle", "border"])
def test_a_resumed_run_goes_on_with_the_size_it_was_at_and_ends_with_the_same_weights(staged, tmp_path, stop):
    val = staged(ResizeStage(0, 1, 64))
    whole, resumed, spy = any_size_model(), any_size_model(), Spy()
    train(whole, staged, val, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train(any_size_model(), staged, val, CONFIG, run_dir=tmp_path, callbacks=[Spy(stop)])
    train(resumed, spied(staged, spy), val, CONFIG, run_dir=tmp_path, resume=True, callbacks=[spy])
    assert spy.seen == list(range(stop, 6))
    assert spy.sides == [48] * STEPS * (4 - stop) + [64] * STEPS * 2
    for expected, got in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_progressive_run_scales_augmentation_and_leaves_a_file_for_the_last_size(digits, tmp_path, monkeypatch):
    # Without RandAugment's many operations, whose strength is scaled all the same; they would take long to compile.
    config = replace(CONFIG, model=TINY, progressive="32,64", epochs=2, batch_size=16, magnitude=8.0, optimizer="sgd")
    config = replace(config, mixup=0.2, cutmix=1.0)
    asked = []

    def pipeline(data, spec, batch_size, **options):
        if options.get("training"):
            asked.append((options["epochs"], spec.size, options["augmentation"]))
        return original(data, spec, batch_size, **options)

    original = input_pipelines.image_pipeline
    monkeypatch.setattr(input_pipelines, "image_pipeline", pipeline)
    small = replace(digits, train=digits.train.sample(48), val=digits.val.sample(32))
    train_dataset(small, config, tmp_path)
    for place, size, strength in ((0, 32, 0.5), (1, 64, 1.0)):
        found = [augmentation for epochs, side, augmentation in asked if (epochs, side) == ((place, place + 1), size)]
        assert found
        for each in found:
            assert (each.magnitude, each.mixup, each.cutmix) == pytest.approx((8 * strength, 0.2 * strength, strength))
    best = keras.models.load_model(tmp_path / BEST)
    assert best.input_shape == (None, 64, 64, 3)
    np.testing.assert_allclose(best.predict(np.zeros((1, 64, 64, 3)), verbose=0).sum(), 1, atol=1e-5)


@pytest.mark.parametrize("until", [2, *(pytest.param(until, marks=pytest.mark.slow) for until in (1, 3))])
def test_a_run_that_pauses_ends_as_one_that_does_not(staged, smooth_images, tmp_path, until):
    """Within a stage and at its end: no later stage may begin, and the schedule is that of the whole."""
    val = tf.data.Dataset.from_tensors((smooth_images(4, 64).astype("float32"), np.arange(4) % 3))
    whole, paused = any_size_model(), any_size_model()
    train(whole, staged, val, CONFIG, run_dir=tmp_path / "whole")
    train(paused, staged, val, CONFIG, run_dir=tmp_path / "cut", callbacks=[Pause(until)])
    assert [row["epoch"] for row in read_rows(tmp_path / "cut")] == list(range(1, until + 1))
    resumed = any_size_model()
    train(resumed, staged, val, CONFIG, run_dir=tmp_path / "cut", resume=True, callbacks=[Pause(CONFIG.epochs)])
    for expected, got in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_step_of_a_training_is_traced_once(smooth_images):
    """Slots created while a step is traced cause a second trace, which doubles the wait for a large network."""
    model, traces = any_size_model(), 0
    images, labels = smooth_images(8, 32).astype("float32"), np.eye(3, dtype="float32")[np.arange(8) % 3]
    loop.compile_model(model, CONFIG, steps=2)
    apply = model.optimizer.apply

    def counted(*args, **kwargs):
        nonlocal traces
        traces += 1
        return apply(*args, **kwargs)

    model.optimizer.apply = counted
    model.fit(tf.data.Dataset.from_tensors((images, labels)).repeat(2), verbose=0)
    assert traces == 1
