"""Optimizers and learning rate schedules against independent formulas, and their step counts."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.training.checkpoints import read_rows
from keras_effnet.training.loop import jit_compile, train
from keras_effnet.training.optimizers import (
    batch_counter,
    build_optimizer,
    ema_momentum,
    epochs_done,
    learning_rate,
    learning_rates,
)

CONFIG = TrainConfig(model="lite0", epochs=10, learning_rate=0.02, warmup_epochs=2, batch_size=8)
STEPS = 50


def rates(config: TrainConfig, steps: int = STEPS) -> np.ndarray:
    schedule = learning_rates(config, steps)
    every = tf.function(lambda: tf.map_fn(schedule, tf.range(config.epochs * steps), fn_output_signature=tf.float32))
    return every().numpy()


@pytest.fixture
def staged_model():
    """Function that builds a small network of this package, whose stages are known; always with the same weights."""
    spec = architecture_spec("lite0", width=0.25, dropout_rate=0.0, drop_connect_rate=0.0)
    spec = replace(spec, stages=spec.stages[:1], head=0)

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return EfficientNet(spec, weights=None, classes=3, input_shape=(32, 32, 3))

    return build


# ------------------------------------------------------------------ schedules


@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
def test_cosine_rises_in_a_line_and_falls_in_half_a_cosine(warmup):
    config = replace(CONFIG, warmup_epochs=warmup)
    steps, rise = np.arange(500), int(warmup * STEPS)
    falling = 0.01 * (1 + np.cos(np.pi * (steps - rise) / (500 - rise)))
    rising = 0.02 * (1e-3 + 0.999 * steps / max(rise, 1))
    np.testing.assert_allclose(rates(config), np.where(steps < rise, rising, falling), rtol=1e-4, atol=1e-8)


def test_exponential_falls_every_2_4_epochs_counted_from_the_first_step():
    config = replace(CONFIG, schedule="exponential", decay_rate=0.5, decay_epochs=2.4)
    found = rates(config)
    for step in range(2 * STEPS + 1, 10 * STEPS):
        if step % 120:  # Keras holds the rate of before at a boundary itself
            assert found[step] == pytest.approx(0.02 * 0.5 ** math.floor(step / 120), rel=1e-5), step
    assert found[0] < 0.02 / 10 and (np.diff(found[: 2 * STEPS]) >= 0).all()


def test_constant_stays_at_the_peak_after_warm_up():
    found = rates(replace(CONFIG, schedule="constant"))
    np.testing.assert_allclose(found[2 * STEPS + 1 :], 0.02, rtol=1e-6)
    steps = np.arange(1, 2 * STEPS)
    np.testing.assert_allclose(found[steps], 0.02 * steps / (2 * STEPS), atol=0.02 * 2 / 50)
    np.testing.assert_allclose(rates(replace(CONFIG, schedule="constant", warmup_epochs=0)), 0.02, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "constant"])
def test_a_warm_up_longer_than_the_run_never_passes_the_peak(schedule):
    found = rates(replace(CONFIG, schedule=schedule, epochs=1, warmup_epochs=5), steps=10)
    assert found.max() <= 0.02 * (1 + 1e-6) and (np.diff(found) >= 0).all()


# ------------------------------------------------------------------ optimizers


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", keras.optimizers.AdamW),
        ("lamb", keras.optimizers.Lamb),
        ("rmsprop", keras.optimizers.RMSprop),
        ("sgd", keras.optimizers.SGD),
    ],
)
def test_each_optimizer_takes_what_the_config_says(toy_model, name, kind):
    config = replace(CONFIG, optimizer=name, momentum=0.8, weight_decay=0.3, clip_norm=2.0)
    optimizer = build_optimizer(toy_model(), config, STEPS)
    assert type(optimizer) is kind
    assert (optimizer.weight_decay, optimizer.clipnorm, optimizer.use_ema) == (0.3, 2.0, False)
    if name in ("rmsprop", "sgd"):
        assert optimizer.momentum == 0.8


@pytest.mark.parametrize("name", ["adamw", "lamb", "rmsprop", "sgd"])
def test_weight_decay_shrinks_kernels_and_nothing_else(name):
    keras.utils.set_random_seed(0)
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.BatchNormalization()(keras.layers.Dense(5)(image))))
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    config = replace(CONFIG, optimizer=name, learning_rate=0.1, warmup_epochs=0, weight_decay=0.5, schedule="constant")
    optimizer = build_optimizer(model, config, STEPS)
    optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    for variable in model.trainable_variables:
        shrunk = 2.0 * (1 - 0.1 * 0.5) if variable.name == "kernel" else 2.0
        np.testing.assert_allclose(variable.numpy(), shrunk, rtol=1e-6, err_msg=variable.path)


def test_loss_scaling_comes_with_float16_alone(toy_model):
    assert type(build_optimizer(toy_model(dtype="mixed_float16"), CONFIG, 4)) is keras.optimizers.LossScaleOptimizer
    assert type(build_optimizer(toy_model(dtype="mixed_bfloat16"), CONFIG, 4)) is keras.optimizers.AdamW


@pytest.mark.parametrize(("epochs", "steps"), [(1, 4), (2, 10), (30, 150), (350, 5000)])
def test_a_moving_average_spans_a_tenth_of_a_run_at_most(epochs, steps):
    momentum = ema_momentum(replace(CONFIG, epochs=epochs, ema=0.9999), steps)
    assert 0 <= momentum <= 0.9999
    assert 1 / (1 - momentum) <= max(1, epochs * steps / 10) * (1 + 1e-6)
    assert (momentum == 0.9999) == (epochs * steps >= 100_000)


# ------------------------------------------------------------------ accumulated gradients


def test_two_batches_of_8_accumulated_are_one_batch_of_16(toy_model, smooth_images):
    labels = np.arange(64, dtype="int32") % 3
    data = tf.data.Dataset.from_tensor_slices((smooth_images(64, 8).astype("float32"), labels))
    config = replace(CONFIG, optimizer="sgd", schedule="constant", warmup_epochs=0, epochs=2, learning_rate=0.05)
    config = replace(config, weight_decay=0.01, clip_norm=0.5)
    joined, accumulated, start = toy_model(), toy_model(), toy_model().get_weights()
    train(joined, data.batch(16), data.batch(16), replace(config, batch_size=16))
    train(accumulated, data.batch(8), data.batch(8), replace(config, accumulate=2))
    moved = 0.0
    for before, expected, got in zip(start, joined.get_weights(), accumulated.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
        moved = max(moved, np.abs(expected - before).max())
    assert moved > 1e-2
    assert int(accumulated.optimizer.iterations) == int(joined.optimizer.iterations) == 8


@pytest.mark.parametrize("warmup", [2.0, 5.0])
def test_what_fell_during_warm_up_is_made_up_for_at_its_end(warmup):
    config = replace(CONFIG, schedule="exponential", decay_rate=0.5, warmup_epochs=warmup)
    assert rates(config)[int(warmup * STEPS) + 1] == pytest.approx(0.02 * 0.5 ** int(warmup / 2.4), rel=1e-5)


@pytest.mark.parametrize("layer_decay", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_accumulating_does_not_hasten_the_schedule_and_resumes_at_the_right_epoch(
    staged_model, smooth_images, tmp_path, layer_decay
):
    labels = np.arange(32, dtype="int32") % 3
    data = tf.data.Dataset.from_tensor_slices((smooth_images(32, 32).astype("float32"), labels)).batch(8)
    config = replace(CONFIG, epochs=3, warmup_epochs=0, accumulate=3, layer_decay=layer_decay)  # 3 does not divide 4

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(staged_model(), data, data, config, run_dir=tmp_path, callbacks=[Stop()])
    resumed = staged_model()
    assert train(resumed, data, data, config, run_dir=tmp_path, resume=True).epoch == [2]
    assert epochs_done(resumed.optimizer, 4) == 3
    expected = [0.01 * (1 + math.cos(math.pi * epoch / 3)) for epoch in (1, 2, 3)]
    assert [row["learning_rate"] for row in read_rows(tmp_path)] == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 7), (2, 7), (7, 7), (3, 100)])
def test_epochs_are_counted_whatever_is_accumulated_and_skipped(toy_model, accumulate, steps):
    model = toy_model(dtype="mixed_float16")
    optimizer = build_optimizer(model, replace(CONFIG, accumulate=accumulate), steps)
    optimizer.build(model.trainable_variables)
    for epoch in range(1, 9):
        batch_counter(optimizer).assign(epoch * steps)
        assert epochs_done(optimizer, steps) == epoch
        batch_counter(optimizer).assign(epoch * steps - 3)  # skipped, as they overflowed
        assert epochs_done(optimizer, steps) == epoch


def test_the_rate_that_is_told_is_the_classifiers(staged_model):
    model = staged_model()
    optimizer = build_optimizer(model, replace(CONFIG, layer_decay=0.5, warmup_epochs=0), STEPS)
    optimizer.build(model.trainable_variables)
    assert learning_rate(optimizer) == pytest.approx(0.02)
    assert min(float(each.learning_rate) for each in optimizer.optimizers) < 0.011


@pytest.mark.parametrize(("interpolation", "compiled"), [("nearest", False), ("bilinear", "auto")])
def test_xla_is_left_out_where_it_has_no_gradient(interpolation, compiled):
    """Also of a nested model."""
    inner = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Resizing(8, 8, interpolation=interpolation)])
    assert jit_compile(keras.Sequential([keras.Input((4, 4, 1)), inner])) == compiled
