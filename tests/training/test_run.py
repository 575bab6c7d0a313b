"""Training: the files of a run, and resumed runs that end with the same weights as uninterrupted ones."""

from __future__ import annotations

import csv
import io
import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image
from small_network import TINY

from keras_effnet import datasets, transfer
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.training import run as training_run
from keras_effnet.training.by_task.judging import Judgement
from keras_effnet.training.by_task.networks import build_model, resolve_precision
from keras_effnet.training.loop import train
from keras_effnet.training.run import train_dataset
from keras_effnet.training.watchers import ChanceWatch

STEPS = 4
CONFIG = TrainConfig(model="lite0", epochs=3, learning_rate=0.01, warmup_epochs=0.5, label_smoothing=0.1, batch_size=8)


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "results.csv").open() as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def checkpoint_groups(path: Path) -> set[str]:
    """Top-level groups of the weights file inside a .keras archive."""
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        return set(file)


def expected_rate(step: int, config: TrainConfig, steps: int) -> float:
    """Linear warm-up from a thousandth of the peak, then half a cosine to zero."""
    warmup = int(config.warmup_epochs * steps)
    if step < warmup:
        return config.learning_rate * (1e-3 + (1 - 1e-3) * step / warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.epochs * steps - warmup)))


class Interrupt(keras.callbacks.Callback):
    """Ends training as a crash would, in the middle of an epoch."""

    def __init__(self, epoch: int):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.epoch == self.at and batch == 2:
            raise RuntimeError("power cut")


class Poison(keras.callbacks.Callback):
    """Puts a NaN into the weights before an epoch, as a step too large does."""

    def __init__(self, epoch: int):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            kernel = self.model.layers[-1].kernel
            kernel.assign(np.full(kernel.shape, np.nan))


# ------------------------------------------------------------------ a finished run


def test_a_run_leaves_every_file_that_it_promises(trained):
    promised = {
        "args.yaml",
        "data.json",
        "env.json",
        "results.csv",
        "augmented.png",
        "curves.png",
        "confusion.png",
        "labels.txt",
        "image_spec.json",
        "weights/best.keras",
        "weights/last.keras",
    }
    folder = trained.run_dir
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == promised
    for plot in ("curves.png", "confusion.png"):
        with Image.open(folder / plot) as image:
            image.verify()


def test_args_yaml_gives_back_the_config_and_the_data(trained, digits):
    saved = yaml.safe_load((trained.run_dir / "args.yaml").read_text())
    config = TrainConfig.from_dict(saved["config"])
    assert (config.model, config.width, config.epochs, config.learning_rate) == ("lite0", 0.35, 8, 3e-3)
    assert saved["data"] == digits.origin


def test_labels_and_image_contract_lie_beside_the_weights(trained):
    assert (trained.run_dir / "labels.txt").read_text().split() == list("0123456789")
    assert ImageSpec.load(trained.run_dir / "image_spec.json") == ImageSpec(32, 127.0, 128.0)


def test_results_has_one_row_an_epoch_and_training_learns(trained):
    table = rows(trained.run_dir)
    assert [row["epoch"] for row in table] == list(range(1, 9)) and trained.epochs == 8
    assert table[-1]["loss"] < table[0]["loss"] / 2
    assert trained.evaluation.accuracy == pytest.approx(max(row["val_accuracy"] for row in table), abs=0.03)


def test_the_best_checkpoint_carries_no_optimizer_and_the_last_one_does(trained):
    best, last = trained.run_dir / "weights/best.keras", trained.run_dir / "weights/last.keras"
    assert "optimizer" not in checkpoint_groups(best)
    assert "optimizer" in checkpoint_groups(last)
    assert best.stat().st_size < 0.5 * last.stat().st_size


def test_the_reported_accuracy_is_that_of_the_best_checkpoint(trained, digits):
    model = keras.models.load_model(trained.run_dir / "weights/best.keras", compile=False)
    # 8x8 digits on a 32x32 canvas, resized by Keras' own layer
    images = keras.ops.image.resize(digits.val.images.astype("float32"), (32, 32), antialias=False)
    right = model.predict(images, verbose=0).argmax(axis=1) == digits.val.labels
    assert right.mean() == pytest.approx(trained.evaluation.accuracy)


# ------------------------------------------------------------------ schedule, decay, precision


def test_the_learning_rate_warms_up_and_follows_the_cosine_to_zero(toy_model, batches, tmp_path):
    train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path)
    rates = [row["learning_rate"] for row in rows(tmp_path)]
    expected = [expected_rate(epoch * STEPS, CONFIG, STEPS) for epoch in (1, 2, 3)]
    assert rates == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_label_smoothing_is_part_of_the_loss(toy_model, batches):
    model = toy_model()
    before = model.predict(batches, verbose=0)
    labels = np.concatenate([labels for _, labels in batches.as_numpy_iterator()])
    target = np.eye(3)[labels] * 0.9 + 0.1 / 3
    expected = -(target * np.log(before)).sum(axis=1).mean()
    # A learning rate of next to nothing leaves the weights, so the first epoch's loss is that of the start.
    history = train(model, batches, batches, replace(CONFIG, epochs=1, learning_rate=1e-12, weight_decay=0.0))
    assert history.history["val_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_weight_decay_shrinks_kernels_and_leaves_biases(toy_model, batches):
    plain, decayed = toy_model(), toy_model()
    for model in (plain, decayed):  # so that a bias has something to lose
        model.layers[-1].bias.assign([5.0, 5.0, 5.0])
    train(plain, batches, batches, replace(CONFIG, learning_rate=0.02, weight_decay=0.0))
    train(decayed, batches, batches, replace(CONFIG, learning_rate=0.02, weight_decay=3.0))
    norm = keras.ops.norm
    assert float(norm(decayed.layers[-1].kernel)) < 0.9 * float(norm(plain.layers[-1].kernel))
    assert float(norm(decayed.layers[-1].bias)) > 0.97 * float(norm(plain.layers[-1].bias))


def test_precision_auto_is_float32_without_an_accelerator():
    if tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"):
        pytest.skip("this machine has an accelerator")
    assert resolve_precision("auto") == "float32"
    assert resolve_precision("mixed_float16") == "mixed_float16"
    with pytest.raises(UserError, match="Did you mean 'float32'"):
        resolve_precision("flaot32")


def test_a_network_in_mixed_float16_computes_in_it_and_ends_in_float32():
    config = replace(CONFIG, depth=0.1, width=0.1, image_size=32, precision="mixed_float16")
    model = build_model(config, classes=3)
    assert model.dtype_policy.name == "mixed_float16"
    assert model.get_layer("stem_conv").compute_dtype == "float16"
    assert model.layers[-1].compute_dtype == "float32" and model.outputs[0].dtype == "float32"


def test_mixed_float16_scales_its_loss_and_a_resumed_run_goes_on_with_the_scale(toy_model, batches, tmp_path):
    model = toy_model(dtype="mixed_float16")
    train(model, batches, batches, replace(CONFIG, epochs=2), run_dir=tmp_path)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.optimizer.dynamic_scale.assign(512.0)
    model.save(tmp_path / "weights/last.keras")
    resumed = toy_model(dtype="mixed_float16")
    history = train(resumed, batches, batches, CONFIG, run_dir=tmp_path, resume=True)
    assert history.epoch == [2]
    assert int(resumed.optimizer.iterations) == 3 * STEPS
    assert float(resumed.optimizer.dynamic_scale) == 512.0
    assert np.isfinite(rows(tmp_path)[-1]["loss"])


# ------------------------------------------------------------------ fine-tuning


def test_a_config_freezes_what_it_names():
    config = replace(CONFIG, depth=0.1, width=0.1, image_size=32, freeze="block5")
    model = build_model(config, classes=3)
    parts = {weight.path.split("_")[0] for weight in model.trainable_weights}
    assert parts == {"block6a", "block7a", "top", "predictions/kernel", "predictions/bias"}
    with pytest.raises(UserError, match=r"Unknown part to freeze 'blok5'\. Did you mean 'block5'"):
        build_model(replace(config, freeze="blok5"), classes=3)


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_a_rate_for_each_stage(smooth_images, tmp_path):
    labels = np.arange(8 * STEPS, dtype="int32") % 3
    images = smooth_images(len(labels), 32).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    config = replace(CONFIG, epochs=2, layer_decay=0.5)
    spec = architecture_spec("lite0", width=0.25, dropout_rate=0.0, drop_connect_rate=0.0)
    spec = replace(spec, stages=spec.stages[:2], head=0)

    def network() -> keras.Model:
        keras.utils.set_random_seed(0)
        return EfficientNet(spec, weights=None, classes=3, input_shape=(32, 32, 3))

    whole, resumed = network(), network()
    train(whole, batches, batches, config, run_dir=tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        cut = [Interrupt(epoch=1)]
        train(network(), batches, batches, config, run_dir=tmp_path / "cut", callbacks=cut)
    train(resumed, batches, batches, config, run_dir=tmp_path / "cut", resume=True)

    for expected, got in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)
    # The rate in the table is the classifier's, the one that the config names.
    expected = [expected_rate(epoch * STEPS, config, STEPS) for epoch in (1, 2)]
    assert [row["learning_rate"] for row in rows(tmp_path / "cut")] == pytest.approx(expected, rel=1e-4, abs=1e-9)


# ------------------------------------------------------------------ validation at chance level


def normalised_toy(momentum: float) -> keras.Model:
    """A classifier of brightness whose every answer goes through batch normalization."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    x = keras.layers.BatchNormalization(momentum=momentum)(x)
    x = keras.layers.Dense(16, activation="relu")(x)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


@pytest.mark.parametrize(("momentum", "warnings"), [(0.9999, 1), (0.5, 0)])
def test_statistics_that_lag_behind_are_named_once_when_validation_stays_at_chance(batches, caplog, momentum, warnings):
    config = replace(CONFIG, epochs=8, learning_rate=0.05)
    history = train(normalised_toy(momentum), batches, batches, config).history
    assert history["accuracy"][-1] > 0.8
    assert (history["val_accuracy"][-1] < 0.4) == bool(warnings)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("keras_effnet")]
    assert len(messages) == warnings
    assert all("bn_momentum is 0.9999: lower it" in message for message in messages)


@pytest.mark.parametrize(
    ("classes", "accuracy", "val_accuracy", "warns"),
    [
        (10, 0.36, 0.15, True),
        (10, 0.36, 0.16, False),  # better than guessing
        (10, 0.34, 0.10, False),  # has learned little yet
        (2, 0.95, 0.60, False),  # a split that is a little hard
        (2, 0.95, 0.53, True),
        (1000, 0.9, 0.03, False),  # thirty times as good as guessing: overfitting
    ],
)
def test_near_chance_depends_on_the_number_of_classes(toy_model, caplog, classes, accuracy, val_accuracy, warns):
    watch = ChanceWatch(classes)
    watch.set_model(toy_model())
    for epoch in range(2):
        watch.on_epoch_end(epoch, {"accuracy": accuracy, "val_accuracy": val_accuracy})
    assert len(caplog.records) == warns
    assert "bn_momentum" not in caplog.text  # a network without batch normalization


# ------------------------------------------------------------------ resume


def test_a_run_cut_short_ends_with_the_weights_of_one_that_was_not(toy_model, batches, tmp_path):
    whole = toy_model()
    train(whole, batches, batches, CONFIG, run_dir=tmp_path / "whole")

    with pytest.raises(RuntimeError, match="power cut"):
        train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path / "cut", callbacks=[Interrupt(epoch=1)])
    assert [row["epoch"] for row in rows(tmp_path / "cut")] == [1]
    resumed = toy_model()
    history = train(resumed, batches, batches, CONFIG, run_dir=tmp_path / "cut", resume=True)

    assert history.epoch == [1, 2]
    assert int(resumed.optimizer.iterations) == 3 * STEPS
    # Adam's moments and the schedule were restored too, or the weights would differ.
    for expected, got in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)
    expected, got = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    assert [row["epoch"] for row in got] == [1, 2, 3]
    assert [row["learning_rate"] for row in got] == pytest.approx([row["learning_rate"] for row in expected], rel=1e-5)
    assert [row["loss"] for row in got] == pytest.approx([row["loss"] for row in expected], rel=1e-3)


def test_a_row_that_the_checkpoint_does_not_hold_is_written_anew(toy_model, batches, tmp_path):
    train(toy_model(), batches, batches, replace(CONFIG, epochs=1), run_dir=tmp_path)
    with (tmp_path / "results.csv").open("r+") as stream:  # killed after the row, before the checkpoint
        _, *columns = stream.readline().split(",")
        stream.read()
        stream.write(",".join(["2", *("1.0" for _ in columns)]) + "\n")
    train(toy_model(), batches, batches, replace(CONFIG, epochs=2), run_dir=tmp_path, resume=True)
    table = rows(tmp_path)
    assert [row["epoch"] for row in table] == [1, 2]
    assert table[1]["loss"] != 1.0


def test_a_finished_run_resumed_does_nothing(toy_model, batches, tmp_path):
    train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path)
    before = (tmp_path / "results.csv").read_text()
    assert train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path, resume=True).epoch == []
    assert (tmp_path / "results.csv").read_text() == before


def test_a_resumed_run_does_not_lose_the_best_checkpoint_to_a_worse_epoch(toy_model, batches, tmp_path):
    train(toy_model(), batches, batches, replace(CONFIG, epochs=1), run_dir=tmp_path)
    lines = (tmp_path / "results.csv").read_text().splitlines()
    values = dict(zip(lines[0].split(","), lines[1].split(","), strict=True)) | {"val_accuracy": "1.0"}
    (tmp_path / "results.csv").write_text("\n".join([lines[0], ",".join(values.values())]) + "\n")
    best = (tmp_path / "weights/best.keras").read_bytes()
    train(toy_model(), batches, batches, replace(CONFIG, epochs=2), run_dir=tmp_path, resume=True)
    assert (tmp_path / "weights/best.keras").read_bytes() == best


def test_steps_that_loss_scaling_skipped_do_not_make_a_resumed_run_repeat_an_epoch(toy_model, batches, tmp_path):
    class Overflow(keras.callbacks.Callback):
        """One step whose float16 gradients overflow: the optimizer skips it and does not count it."""

        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                self.model.optimizer.dynamic_scale.assign(2.0**120)
            elif batch == 2:
                self.model.optimizer.dynamic_scale.assign(2.0**10)

    model = toy_model(dtype="mixed_float16")
    train(model, batches, batches, replace(CONFIG, epochs=2), run_dir=tmp_path, callbacks=[Overflow()])
    assert int(model.optimizer.iterations) < 2 * STEPS
    resumed = toy_model(dtype="mixed_float16")
    history = train(resumed, batches, batches, CONFIG, run_dir=tmp_path, resume=True)
    assert history.epoch == [2]
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3]


def test_there_must_be_something_to_resume(toy_model, batches, tmp_path):
    with pytest.raises(UserError, match=r"Nothing to resume: .* has no weights/last.keras. Leave out --resume"):
        train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path, resume=True)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_checkpoint_of_another_network_is_refused(toy_model, batches, tmp_path):
    train(toy_model(classes=3), batches, batches, replace(CONFIG, epochs=1), run_dir=tmp_path)
    with pytest.raises(UserError, match="does not fit this network"):
        train(toy_model(classes=4), batches, batches, CONFIG, run_dir=tmp_path, resume=True)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_resume_that_is_refused_leaves_the_run_folder_as_it_was(trained, digits, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.run_dir, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = TrainConfig(model="lite0", depth=0.1, width=0.2, image_size=32, epochs=9)
    with pytest.raises(UserError, match="does not fit this network"):
        train_dataset(digits, other, folder, resume=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.soak  # tests/training/test_killed.py kills one in every slow suite, and compares it to the bit
def test_a_run_killed_in_mid_epoch_goes_on_from_its_last_checkpoint(cli, tmp_path):
    options = ["--model=lite0", "--depth=0.1", "--width=0.1", "--image-size=32", "--batch-size=16", "--epochs=3"]
    folder = tmp_path / "runs/train/digits"
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_effnet", "train", "digits", *options],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while not (folder / "weights/last.keras").exists() and time.monotonic() < deadline:
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.02)
        time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = len(rows(folder))
    assert 1 <= done < 3

    finished = cli("train", "--resume", folder)
    assert finished.status == 0, finished.err
    assert "3 epochs" in finished.out
    assert f"Result: {folder}" in finished.out
    assert f"Next:   keras-effnet export {folder}" in finished.out
    table = rows(folder)
    assert [row["epoch"] for row in table] == [1, 2, 3]
    config = TrainConfig.from_dict(yaml.safe_load((folder / "args.yaml").read_text())["config"])
    steps = 1258 // 16
    expected = [expected_rate(epoch * steps, config, steps) for epoch in (1, 2, 3)]
    assert [row["learning_rate"] for row in table] == pytest.approx(expected, rel=1e-4, abs=1e-9)
    last = keras.models.load_model(folder / "weights/last.keras")
    assert int(last.optimizer.iterations) == 3 * steps


# ------------------------------------------------------------------ what goes wrong


def test_a_loss_that_becomes_nan_stops_with_the_last_good_checkpoint_named(toy_model, batches, tmp_path):
    run = tmp_path / "my run"
    with pytest.raises(UserError, match="NaN or infinite at step 1 of epoch 2, at a learning rate of ") as caught:
        train(toy_model(), batches, batches, CONFIG, run_dir=run, callbacks=[Poison(epoch=1)])
    message = str(caught.value)
    assert f"last good checkpoint is {run / 'weights/last.keras'}, of epoch 1" in message
    # 4 steps an epoch: step 5 stands on the cosine from the peak, 0.01
    assert f"rate of {expected_rate(5, CONFIG, STEPS):.3g}" in message
    _, command = message.split("keras-effnet ")  # to be typed as it stands
    assert shlex.split(command) == ["train", "--resume", str(run), "--learning-rate", "0.003"]
    assert [row["epoch"] for row in rows(run)] == [1]
    kept = keras.models.load_model(run / "weights/last.keras")
    assert all(np.isfinite(weight).all() for weight in kept.get_weights())


@pytest.fixture
def disk_config() -> TrainConfig:
    return TrainConfig(model=TINY, image_size=32, epochs=1, batch_size=4, cache="disk", optimizer="sgd")


def test_a_cache_on_disk_serves_the_end_of_a_run_too_and_is_gone_after_it(disk_config, image_folder, tmp_path):
    images, said = datasets.load(str(image_folder({"a": 12, "b": 12}))), []
    result = train_dataset(images, disk_config, tmp_path / "new" / "run", announce=said.append)
    assert any("pixels are cached on disk" in line for line in said)
    assert {"env.json", "augmented.png"} <= {path.name for path in result.run_dir.iterdir()}
    assert result.epochs == 1 and not (result.run_dir / "cache").exists()
    # With no epoch left, the end alone fills the cache.
    again = train_dataset(images, disk_config, result.run_dir, resume=True)
    assert again.epochs == 1 and not (result.run_dir / "cache").exists()


@pytest.mark.parametrize(("change", "kept"), [(-1.0, "kept as trained"), (1.0, "re-estimated")])
def test_re_estimated_statistics_are_kept_only_if_the_network_scores_higher_with_them(
    disk_config, image_folder, tmp_path, monkeypatch, change, kept
):
    def bias(model) -> np.ndarray:
        return model.layers[-1].bias.numpy()

    monkeypatch.setattr(
        transfer, "reestimate_batch_norm", lambda model, data: model.layers[-1].bias.assign(bias(model) + change)
    )
    monkeypatch.setattr(
        training_run, "judge", lambda model, *rest: Judgement(None, float(bias(model)[0]), lambda *drawn: None)
    )
    said: list[str] = []
    images = datasets.load(str(image_folder({"a": 12, "b": 12})))
    result = train_dataset(images, disk_config, tmp_path / "run", announce=said.append)
    stored = keras.models.load_model(tmp_path / "run/weights/best.keras")
    assert bias(stored)[0] == bias(result.model)[0] == pytest.approx(result.score)
    line = next(line for line in said if line.startswith("Batch normalization"))
    trained, measured = map(float, re.findall(r"-?\d+\.\d+", line))
    assert f": {kept} (" in line and measured - trained == pytest.approx(change, abs=0.002)
    assert result.score == pytest.approx(max(trained, measured), abs=0.001)


def test_a_run_that_fails_at_its_end_leaves_its_best_checkpoint_and_no_cache(
    disk_config, image_folder, tmp_path, monkeypatch
):
    def spoil(model, data):
        model.layers[-1].bias.assign(np.full(2, np.nan))

    monkeypatch.setattr(transfer, "reestimate_batch_norm", spoil)
    images = datasets.load(str(image_folder({"a": 12, "b": 12})))
    with pytest.raises(UserError, match="NaN or infinite values for 4 of 4"):
        train_dataset(images, disk_config, tmp_path / "run")
    kept = keras.models.load_model(tmp_path / "run/weights/best.keras")
    assert all(np.isfinite(weight).all() for weight in kept.get_weights())
    assert not (tmp_path / "run/cache").exists()


def test_a_loss_that_is_nan_from_the_start_names_no_checkpoint(toy_model, batches, tmp_path):
    with pytest.raises(UserError, match="The loss became NaN") as caught:
        train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path, callbacks=[Poison(epoch=0)])
    assert "checkpoint" not in str(caught.value)
    assert not list((tmp_path / "weights").iterdir())


def test_a_label_beyond_the_models_classes_is_an_error(toy_model, batches):
    with pytest.raises(UserError, match="beyond the classes of the model, which has 2"):
        train(toy_model(classes=2), batches, batches, replace(CONFIG, epochs=1))


def test_data_of_unknown_length_is_refused_with_the_cure(toy_model, batches):
    endless = batches.repeat()
    with pytest.raises(UserError, match=r"no known length; call \.take"):
        train(toy_model(), endless, batches, CONFIG)


def test_without_a_run_folder_nothing_is_written(toy_model, batches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = train(toy_model(), batches, batches, replace(CONFIG, epochs=1))
    assert history.epoch == [0]
    assert list(tmp_path.iterdir()) == []
