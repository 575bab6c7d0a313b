"""Moving average of the weights: its value, the best checkpoint, and no effect on training itself."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.training.checkpoints import BEST, LAST, RunFolder, read_rows
from keras_effnet.training.ema import AveragedWeights
from keras_effnet.training.loop import train
from keras_effnet.training.optimizers import ema_momentum

CONFIG = TrainConfig(
    model="lite0", epochs=3, learning_rate=0.02, warmup_epochs=0.5, batch_size=8, ema=0.9, schedule="constant"
)
STEPS = 4


def regular_model() -> keras.Model:
    """Dense layers with batch normalization and dropout, so small that one thread computes them: exact every time."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Dense(6)(x))
    x = keras.layers.Dropout(0.3)(keras.layers.Activation("relu")(x))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


class Recorder(keras.callbacks.Callback):
    """The trainable weights after every batch."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append([variable.numpy() for variable in self.model.trainable_variables])


def averaged_by_hand(weights: list[list[np.ndarray]], momentum: float) -> list[np.ndarray]:
    average = weights[0]
    for each in weights[1:]:
        average = [momentum * old + (1 - momentum) * new for old, new in zip(average, each, strict=True)]
    return average


def test_the_average_is_the_sum_that_it_should_be_and_is_evaluated_with_it(toy_model, batches, tmp_path):
    model, recorder = toy_model(), Recorder()
    train(model, batches, batches, CONFIG, run_dir=tmp_path, callbacks=[recorder])
    momentum = ema_momentum(CONFIG, STEPS)
    assert 0 < momentum < 0.9  # shortened, as the run is
    expected = averaged_by_hand(recorder.weights, momentum)
    copy = toy_model()
    copy.set_weights(expected)  # no batch normalization: all weights are trainable
    copy.compile(loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy"])
    one_hot = batches.map(lambda images, labels: (images, keras.ops.one_hot(labels, 3)))
    loss, accuracy = copy.evaluate(one_hot, verbose=0)
    row = read_rows(tmp_path)[-1]
    assert row["val_ema_loss"] == pytest.approx(loss, rel=1e-4)
    assert row["val_ema_accuracy"] == pytest.approx(accuracy)
    assert row["val_ema_loss"] != pytest.approx(row["val_loss"], rel=1e-4)
    # The optimizer keeps it, so a checkpoint does.
    kept = keras.models.load_model(tmp_path / LAST)
    averages = [variable for variable in kept.optimizer.variables if variable.name.endswith("_average")]
    for average, wanted in zip(averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), wanted, atol=1e-6)
    # After `fit`, and in the checkpoint, the weights are those of the last batch.
    for last in (model, kept):
        for got, wanted in zip(last.trainable_variables, recorder.weights[-1], strict=True):
            np.testing.assert_array_equal(got.numpy(), wanted)


def test_averaging_leaves_no_trace_in_the_training(batches):
    plain, averaged = regular_model(), regular_model()
    without = train(plain, batches, batches, replace(CONFIG, ema=0.0)).history
    with_it = train(averaged, batches, batches, CONFIG).history
    for expected, got in zip(plain.get_weights(), averaged.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert with_it["loss"] == without["loss"] and with_it["val_loss"] == without["val_loss"]
    assert {"val_ema_loss", "val_ema_accuracy"} <= with_it.keys() and "val_ema_loss" not in without


def test_a_run_that_a_callback_stops_early_keeps_its_own_weights_too(batches):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model, recorder = regular_model(), Recorder()
    train(model, batches, batches, CONFIG, callbacks=[recorder, Stop()])
    assert len(recorder.weights) == STEPS
    for got, wanted in zip(model.trainable_variables, recorder.weights[-1], strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted)


def test_epochs_that_are_not_due_are_not_evaluated_and_keep_their_weights(toy_model, batches):
    evaluated = []

    def measure(network):
        evaluated.append(network)
        return {"loss": 1.0, "accuracy": 0.5}

    model, recorder = toy_model(), Recorder()
    watch = AveragedWeights(None, batches, measure=measure, due=lambda epoch: epoch == 0)
    model.compile(keras.optimizers.SGD(0.05, use_ema=True), "sparse_categorical_crossentropy")
    found = model.fit(batches, epochs=2, callbacks=[recorder, watch], verbose=0).history
    assert len(evaluated) == 1
    np.testing.assert_array_equal(found["val_ema_accuracy"], [0.5, np.nan])
    for got, wanted in zip(model.trainable_variables, recorder.weights[-1], strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted)


def test_the_averages_batch_normalization_is_measured_with_the_averaged_weights(batches):
    model = regular_model()
    callback = AveragedWeights(batches.map(lambda images, labels: (images, keras.ops.one_hot(labels, 3))), batches)
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    model.fit(callback.val, epochs=2, callbacks=[callback], shuffle=False, verbose=0)
    own = model.get_weights()
    with callback.in_place():
        dense, norm = model.layers[3], model.layers[4]
        outputs = [
            keras.Model(model.input, dense.output).predict_on_batch(images) for images, _ in batches.as_numpy_iterator()
        ]
        np.testing.assert_allclose(norm.moving_mean, np.mean([out.mean(axis=0) for out in outputs], axis=0), rtol=1e-3)
        np.testing.assert_allclose(norm.moving_variance, np.mean([o.var(axis=0) for o in outputs], axis=0), rtol=1e-2)
        assert any((a != b).any() for a, b in zip(own, model.get_weights(), strict=True))
    for before, after in zip(own, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_best_checkpoint_holds_the_average_where_that_is_better(toy_model, batches, tmp_path):
    model = toy_model()
    averaged = AveragedWeights(batches, batches)
    averaged.set_model(model)
    averaged._weights = [np.full(weight.shape, 0.25) for weight in model.get_weights()]
    model.compile("sgd", "sparse_categorical_crossentropy")
    run = RunFolder(tmp_path, 0, averaged)
    run.set_model(model)
    own = model.get_weights()

    def best_after(epoch: int, accuracy: float, average: float) -> list[np.ndarray]:
        run.on_epoch_begin(epoch)
        run.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_ema_accuracy": average})
        for before, after in zip(own, model.get_weights(), strict=True):
            np.testing.assert_array_equal(after, before)
        for last, weight in zip(keras.models.load_model(tmp_path / LAST).get_weights(), own, strict=True):
            np.testing.assert_array_equal(last, weight)
        return keras.models.load_model(tmp_path / BEST).get_weights()

    assert all((weight == 0.25).all() for weight in best_after(0, 0.5, 0.6))
    assert all((weight == 0.25).all() for weight in best_after(1, 0.55, 0.6))  # neither is better than 0.6
    for got, wanted in zip(best_after(2, 0.7, 0.6), own, strict=True):
        np.testing.assert_array_equal(got, wanted)
    again = RunFolder(tmp_path, 2, averaged)
    assert again.best == 0.6 and len(again.rows) == 2
