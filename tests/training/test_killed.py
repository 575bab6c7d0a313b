"""Runs that are killed or run out of disk: files on disk stay complete, and the run can be resumed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.training import run
from keras_effnet.training.checkpoints import BEST, LAST, read_rows
from keras_effnet.training.loop import train
from keras_effnet.training.run import train_dataset
from keras_effnet.training.watchers import EpochSeeds, Pause

EPOCHS = 4
KILLS = 20
CONFIG = TrainConfig(model="lite0", epochs=3, learning_rate=0.01, batch_size=8)

# Trains in children that it forks off before TensorFlow has started a thread: they need not import it again.
TRAINER = f"""
import os, sys
from dataclasses import replace
from keras_effnet import datasets
from keras_effnet.config import TrainConfig
from keras_effnet.training import train_dataset

digits = datasets.load("digits")
digits = replace(digits, train=digits.train.sample(72), val=digits.val.sample(32))
config = TrainConfig(
    model="lite0", depth=0.1, width=0.1, image_size=32, epochs={EPOCHS}, batch_size=16, learning_rate=5e-3,
    warmup_epochs=0.5, dropout_rate=0.3, drop_connect_rate=0.3, policy="randaugment", ema=0.9, precision="float32",
    deterministic=True, seed=3,
)
for line in sys.stdin:
    folder, resume = line.split()
    child = os.fork()
    if child == 0:
        train_dataset(digits, config, folder, resume=resume == "resume")
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Trainer:
    """A process that trains in children of its own, one after another."""

    def __init__(self, log: Path):
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TRAINER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            )
        self.log = log

    def _say(self) -> int:
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-2000:]
        return int(line)

    def start(self, folder: Path) -> int:
        """Starts a training, or resumes the one in `folder`; returns the child's process id."""
        how = "resume" if (folder / LAST).exists() else "anew"
        self.process.stdin.write(f"{folder} {how}\n")
        self.process.stdin.flush()
        return self._say()

    def status(self) -> int:
        """Waits for the child to end."""
        return self._say()

    def run(self, folder: Path) -> None:
        self.start(folder)
        assert self.status() == 0, self.log.read_text()[-2000:]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path_factory.mktemp("trainer") / "log.txt")
    yield trainer
    trainer.process.stdin.close()
    trainer.process.wait(60)


@pytest.fixture(scope="module")
def unbroken(trainer, tmp_path_factory) -> tuple[Path, float]:
    """The folder of a run that nothing disturbed, and the seconds that it took."""
    folder, started = tmp_path_factory.mktemp("unbroken"), time.monotonic()
    trainer.run(folder)
    return folder, time.monotonic() - started


def assert_same_run(folder: Path, expected: Path) -> None:
    """The same rows but for times, the same weights to the bit."""
    for name in (LAST, BEST):
        weights, wanted = (
            keras.models.load_model(root / name, compile=False).get_weights() for root in (folder, expected)
        )
        for got, want in zip(weights, wanted, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=name)
    rows, wanted = read_rows(folder), read_rows(expected)
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    for column in ("loss", "val_loss", "val_ema_loss", "learning_rate"):
        assert [row[column] for row in rows] == [row[column] for row in wanted], column
    assert not [path for path in folder.rglob(".*") if path.is_file()]
    assert not (folder / "cache").exists()


def assert_whole(folder: Path) -> None:
    """What checkpoints there are open."""
    for name in (LAST, BEST):
        if (folder / name).exists():
            keras.models.load_model(folder / name)


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_ends_as_if_it_had_not_been_to_the_bit(trainer, unbroken, tmp_path):
    child = trainer.start(tmp_path)
    while len(read_rows(tmp_path)) < 2 or not (tmp_path / LAST).exists():
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert trainer.status() == signal.SIGKILL
    assert 1 <= len(read_rows(tmp_path)) < EPOCHS
    assert_whole(tmp_path)
    trainer.run(tmp_path)
    assert_same_run(tmp_path, unbroken[0])


@pytest.mark.soak
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been_to_the_bit(trainer, unbroken, tmp_path):
    expected, seconds = unbroken
    moments = random.Random(0)
    killed = tries = 0
    while killed < KILLS:
        tries += 1
        assert tries < 3 * KILLS, "most runs end before they can be killed"
        folder = tmp_path / str(tries)
        folder.mkdir()
        child = trainer.start(folder)
        time.sleep(moments.uniform(0, seconds))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if trainer.status() != signal.SIGKILL:
            seconds *= 0.8  # the machine is less busy than it was
        else:
            killed += 1
            assert_whole(folder)
            trainer.run(folder)
        assert_same_run(folder, expected)
        shutil.rmtree(folder)


def test_dropout_draws_anew_in_every_epoch_and_layer_and_the_same_again_for_the_same_seed():
    layers = [keras.layers.Dropout(0.5), keras.layers.Dropout(0.5, noise_shape=(None, 1))]
    image = keras.Input((4,))
    model = keras.Model(image, layers[1](layers[0](image)))

    def states(seed: int, epoch: int) -> list[tuple[int, ...]]:
        callback = EpochSeeds(seed)
        callback.set_model(model)
        callback.on_epoch_begin(epoch)
        return [tuple(layer.seed_generator.state.numpy().tolist()) for layer in layers]

    assert states(3, 7) == states(3, 7)
    drawn = [state for seed in (0, 5) for epoch in range(400) for state in states(seed, epoch)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("write", [3, 4, 5])  # the first checkpoint; what comes before the second; that itself
def test_a_run_cut_off_before_any_of_its_files_is_in_place_goes_on(toy_model, batches, tmp_path, monkeypatch, write):
    config, places = replace(CONFIG, epochs=2), []
    original = Path.replace

    def cut(self, target):
        places.append(Path(target).name)
        if len(places) == write:
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    try:
        train(toy_model(), batches, batches, config, run_dir=tmp_path)
    except KeyboardInterrupt:
        assert len(places) == write
    monkeypatch.setattr(Path, "replace", original)
    assert_whole(tmp_path)
    whole, resumed = toy_model(), toy_model()
    train(resumed, batches, batches, config, run_dir=tmp_path, resume=(tmp_path / LAST).exists())
    train(whole, batches, batches, config)
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2]
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"best.keras", "last.keras"}
    for expected, got in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_a_run_is_resumed_after_the_clock_was_set_back(toy_model, batches, tmp_path, monkeypatch):
    year, wall = 365 * 86400, time.time
    train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path / "run", callbacks=[Pause(1)])
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (wall() + year,) * 2)
    monkeypatch.setattr(time, "time", lambda: wall() - year)
    assert train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path / "run", resume=True).epoch == [1, 2]
    rows = read_rows(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(0 <= row["seconds"] < 60 for row in rows)


# ------------------------------------------------------------------ a full disk


@pytest.mark.parametrize("name", ["last", pytest.param("best", marks=pytest.mark.slow)])
def test_a_disk_that_is_full_at_a_checkpoint_leaves_the_one_before(toy_model, batches, tmp_path, monkeypatch, name):
    original = keras.Model.save

    class Fill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                monkeypatch.setattr(keras.Model, "save", full)
                (tmp_path / BEST).unlink()  # so that best is written in any case
                grabbed.best = -1.0

    def full(self, path, *args, **kwargs):
        if name not in Path(path).name:
            return original(self, path, *args, **kwargs)
        Path(path).write_bytes(b"PK half a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    grabbed = _grab_run_folder(monkeypatch)
    with pytest.raises(UserError) as caught:
        train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path, callbacks=[Fill()])
    message = str(caught.value)
    assert message == (
        f"Cannot write epoch 3 to {tmp_path}: No space left on device. The last good checkpoint, of epoch 2, is "
        f"intact; free some space and resume: keras-effnet train --resume {tmp_path}"
    )
    monkeypatch.setattr(keras.Model, "save", original)
    assert not list((tmp_path / "weights").glob(".*"))
    assert int(keras.models.load_model(tmp_path / LAST).optimizer.iterations) == 2 * 4
    whole, resumed = toy_model(), toy_model()
    assert train(resumed, batches, batches, CONFIG, run_dir=tmp_path, resume=True).epoch == [2]
    train(whole, batches, batches, CONFIG)
    for expected, got in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def _grab_run_folder(monkeypatch):
    """Stands for the run's `RunFolder`, of which a test must forget the best accuracy."""
    from keras_effnet.training import loop

    class Grabbed:
        def __setattr__(self, name, value):
            setattr(made[0], name, value)

    made, original = [], loop.RunFolder
    monkeypatch.setattr(loop, "RunFolder", lambda *args: made.append(original(*args)) or made[-1])
    return Grabbed()


def test_a_disk_that_is_full_in_the_first_epoch_promises_no_checkpoint(toy_model, batches, tmp_path, monkeypatch):
    def full(self, path, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(
        UserError, match=r"Cannot write epoch 1 to .*: No space left on device\. Free some space and train again\."
    ):
        train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path)


def test_results_that_were_emptied_are_refused_instead_of_lost(tmp_path):
    assert read_rows(tmp_path) == []
    (tmp_path / "results.csv").touch()
    with pytest.raises(UserError, match=r"results\.csv is damaged: it is empty\. Correct it, or remove it to resume"):
        read_rows(tmp_path)


def test_checkpoints_that_were_removed_are_not_called_intact(toy_model, batches, tmp_path):
    class Remove(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                shutil.rmtree(tmp_path / "weights")

    with pytest.raises(UserError, match=r"Cannot write epoch 2 to .*Make the folder writable and train again\.$"):
        train(toy_model(), batches, batches, CONFIG, run_dir=tmp_path, callbacks=[Remove()])


@pytest.mark.parametrize("resumes", [True, False])
def test_an_image_that_vanishes_is_named_with_the_next_step(tmp_path, resumes):
    if resumes:
        (tmp_path / LAST).parent.mkdir()
        (tmp_path / LAST).touch()
    reading = tf.data.Dataset.from_tensors(str(tmp_path / "gone.png")).map(tf.io.read_file)
    with pytest.raises(UserError) as caught, run._occupied(tmp_path):
        next(iter(reading))
    after = f"resume: keras-effnet train --resume {tmp_path}" if resumes else "train again."
    assert str(caught.value) == (
        f"An image of the data changed or vanished during training ({tmp_path}/gone.png; No such file or directory). "
        f"Restore it, and {after}"
    )


@pytest.mark.slow
def test_a_real_disk_that_fills_up_leaves_a_run_that_goes_on(small_disk, digits):
    folder, filler = small_disk / "run", small_disk / "filler"

    class Fill(keras.callbacks.Callback):
        def __init__(self, left: int):
            super().__init__()
            self.left = left

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - self.left))

    small = replace(digits, train=digits.train.sample(32), val=digits.val.sample(32))
    config = replace(CONFIG, depth=0.1, width=0.1, image_size=32, epochs=2, batch_size=16, ema=0.9)
    for left, resume in ((0, False), (30_000, True)):  # at the first byte; in the middle of a checkpoint
        with pytest.raises(UserError, match=f"Cannot write epoch 2 to .*No space left.*--resume {folder}"):
            train_dataset(small, config, folder, resume=resume, callbacks=[Fill(left)])
        assert_whole(folder)
        assert [row["epoch"] for row in read_rows(folder)][:1] == [1]
        filler.unlink()
    assert train_dataset(small, config, folder, resume=True).epochs == 2
