"""Tracking of a run: throughput, time spent waiting for data, TensorBoard, Weights & Biases."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.training.checkpoints import read_rows
from keras_effnet.training.loop import train
from keras_effnet.training.tracking import Throughput, WandbLogger, tensorboard

CONFIG = TrainConfig(model="lite0", epochs=2, learning_rate=0.01, warmup_epochs=0.5, batch_size=8)
PAUSE = 0.25  # seconds; a sleep costs no work, and a busy machine's steps stay well below it


class Clock(keras.callbacks.Callback):
    """Steps a second of each epoch, its first step left out; `pause` makes each step longer."""

    def __init__(self, pause: float = 0.0):
        super().__init__()
        self.pause, self.rates = pause, []

    def on_epoch_begin(self, epoch, logs=None):
        self.ends = []

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(self.pause)

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append((len(self.ends) - 1) / (self.ends[-1] - self.ends[0]))


def slow(batches: tf.data.Dataset) -> tf.data.Dataset:
    def pause(images, labels):
        with tf.control_dependencies([tf.numpy_function(lambda: time.sleep(PAUSE), [], [])]):
            return tf.identity(images), labels

    return batches.map(pause)


def test_a_run_that_waits_for_its_data_says_so(toy_model, batches, tmp_path):
    clock = Clock()
    train(toy_model(), slow(batches), batches, CONFIG, run_dir=tmp_path, callbacks=[clock])
    rows = read_rows(tmp_path)
    for row, rate in zip(rows, clock.rates, strict=True):
        assert row["images_per_second"] == pytest.approx(8 * rate, rel=0.05)
    # In the first epoch batches gather while the program is compiled; from the second on each is waited for.
    assert rows[1]["input_bound"] > 0.6


@pytest.mark.parametrize("joined", [False, True])
def test_a_run_whose_steps_take_long_does_not_blame_its_data(toy_model, batches, tmp_path, joined):
    clock = Clock(PAUSE)
    data = (lambda stage: batches.repeat(stage.last - stage.first)) if joined else batches
    train(toy_model(), data, batches, CONFIG, run_dir=tmp_path, callbacks=[clock])
    for row, rate in zip(read_rows(tmp_path), clock.rates, strict=True):
        assert row["input_bound"] < 0.3
        assert row["images_per_second"] == pytest.approx(8 * rate, rel=0.05)


def test_watching_changes_no_batch_and_a_single_step_tells_nothing(batches, toy_model):
    throughput = Throughput(8)
    for (images, labels), (others, other_labels) in zip(batches, throughput.watch(batches), strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)
    assert int(throughput.watch(batches).cardinality()) == 4
    model = toy_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    throughput = Throughput(8)
    history = model.fit(throughput.watch(batches.take(1)), callbacks=[throughput], shuffle=False, verbose=0)
    assert "input_bound" not in history.history


def test_the_loss_scale_is_a_column_under_mixed_float16_alone(toy_model, batches, tmp_path):
    train(toy_model(dtype="mixed_float16"), batches, batches, CONFIG, run_dir=tmp_path / "half")
    train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path / "single")
    scales = [row["loss_scale"] for row in read_rows(tmp_path / "half")]
    assert all(scale > 0 and np.log2(scale) % 1 == 0 for scale in scales) and len(scales) == 2
    assert "loss_scale" not in read_rows(tmp_path / "single")[0]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, of all event files below a folder."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.HasField("tensor") and value.tensor.dtype == tf.float32.as_datatype_enum:
                    tag = f"{path.parent.name}/{value.tag}"
                    found.setdefault(tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


def test_tensorboard_has_every_epoch_of_a_resumed_run(toy_model, batches, tmp_path):
    for epochs, resume in ((2, False), (3, True)):
        config = replace(CONFIG, epochs=epochs)
        callbacks = [tensorboard(tmp_path)]
        train(toy_model(), batches, batches, config, run_dir=tmp_path, resume=resume, callbacks=callbacks)
    found, rows = scalars(tmp_path / "tensorboard"), read_rows(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for tag, column in (("train/epoch_loss", "loss"), ("validation/epoch_loss", "val_loss")):
        assert found[tag] == pytest.approx({epoch: row[column] for epoch, row in enumerate(rows)}, rel=1e-5)


def test_weights_and_biases_goes_on_in_the_same_record(toy_model, batches, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    identities = []
    for epochs, resume in ((1, False), (2, True)):
        logger = WandbLogger("tests", tmp_path, {"epochs": epochs})
        config = replace(CONFIG, epochs=epochs)
        train(toy_model(), batches, batches, config, run_dir=tmp_path, resume=resume, callbacks=[logger])
        identities.append(logger._run.id)
        logger.close()
        logger.close()  # once is enough, twice does no harm
    assert identities[0] == identities[1] == (tmp_path / "wandb-id.txt").read_text().strip()
    records = list((tmp_path / "wandb").glob(f"offline-run-*/run-{identities[0]}.wandb"))
    assert len(records) == 2 and all(path.stat().st_size > 0 for path in records)
