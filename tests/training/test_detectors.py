"""Training of detectors from batches: frozen epochs, average precision, checkpoints, resuming."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_effnet import training
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.annotations import digit_scenes
from keras_effnet.detection import TargetAssigner
from keras_effnet.models.saving import load_model
from keras_effnet.tasks import TASKS, task_of
from keras_effnet.training.checkpoints import BEST, LAST, read_rows
from keras_effnet.training.memory.step_memory import measured_step_bytes
from keras_effnet.training.watchers import Pause

pytestmark = pytest.mark.slow
SIZE = 64
CONFIG = TrainConfig(
    model="det-lite0",
    backbone=str(Path(__file__).parents[1] / "support" / "tiny_detector.yaml"),
    image_size=SIZE,
    bifpn_width=8,
    bifpn_cells=1,
    head_depth=1,
    anchor_scale=2.0,
    epochs=2,
    frozen_epochs=1,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.02,
    global_clip_norm=10.0,
    warmup_epochs=0,
)


@pytest.fixture(scope="module")
def batches():
    """Training and validation batches of the pipeline's form."""
    images, boxes, labels = digit_scenes(16, SIZE)
    assign = TargetAssigner(CONFIG.detector, (SIZE, SIZE))
    targets = [assign(tf.constant(box), tf.constant(label)) for box, label in zip(boxes, labels, strict=True)]
    rows = {name: np.stack([each[name] for each in targets]) for name in ("labels", "codes")}
    most = max(map(len, boxes))
    truth = {
        "boxes": np.stack([np.pad(box, ((0, most - len(box)), (0, 0))) for box in boxes]),
        "classes": np.stack([np.pad(label, (0, most - len(label)), constant_values=-1) for label in labels]),
        "crowd": np.zeros((16, most), bool),
        "scale": np.ones((16, 2), "float32"),
    }
    pixels = images.astype("float32")
    train, val = (tf.data.Dataset.from_tensor_slices((pixels, each)).batch(8) for each in (rows, truth))
    return train, val


def fit(folder: Path, batches, config=CONFIG, **options):
    model = training.build_model(config, 10, task="detection")
    train, val = batches
    epochs = {1: train, 2: train.repeat(2)}
    training.train(model, lambda stage: epochs[stage.last - stage.first], val, config, run_dir=folder, **options)
    return model


def test_a_run_that_was_interrupted_between_frozen_and_free_epochs_ends_with_the_same_bits(batches, tmp_path):
    begun = training.build_model(CONFIG, 10, task="detection").get_layer("block1a_project_conv").kernel.numpy()
    whole = fit(tmp_path / "whole", batches)
    paused = fit(tmp_path / "part", batches, callbacks=[Pause(1)])
    np.testing.assert_array_equal(paused.get_layer("block1a_project_conv").kernel, begun)  # frozen
    resumed = fit(tmp_path / "part", batches, resume=True)
    assert not np.array_equal(resumed.get_layer("block1a_project_conv").kernel, begun)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)

    header = (tmp_path / "part" / "results.csv").read_text().splitlines()[0].split(",")
    assert {"boxes_loss", "logits_loss", "val_loss", "val_ap", "val_ap50"} <= {*header}
    best, last = (load_model(tmp_path / "part" / name) for name in (BEST, LAST))
    assert sorted(best.output) == ["boxes", "scores"] and sorted(last.output) == ["boxes", "logits"]
    assert task_of(best).name == task_of(last).name == "detection"
    assert (tmp_path / "part" / "curves.png").is_file()


def test_the_moving_average_is_measured_beside_the_weights_when_its_epoch_is_due(batches, tmp_path):
    config = replace(CONFIG, frozen_epochs=0, ema=0.9, ap_every=2)
    fit(tmp_path, batches, config)
    first, second = read_rows(tmp_path, TASKS["detection"].learning.watched)
    for column in ("val_ap", "val_ema_ap", "val_ema_loss"):
        assert np.isnan(first[column]) and np.isfinite(second[column])
    assert second["val_ema_loss"] != second["val_loss"]


def test_a_step_of_a_detector_is_measured():
    assert 1e8 < measured_step_bytes(CONFIG, 2, 10, task="detection") < 2e9


# Runs in children that are forked before TensorFlow has started a thread: they need not import it again.
RUNS = """
import json, os, signal, sys
from dataclasses import replace

import keras
import tensorflow as tf
from keras_effnet import datasets
from keras_effnet.config import TrainConfig
from keras_effnet.training import train_dataset

folder, options = sys.argv[1], json.loads(sys.argv[2])
scenes = datasets.load("digits-scenes", image_size=64)
scenes = replace(scenes, train=scenes.train.sample(32), val=scenes.val.sample(8))


class Killed(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)


def run(name, *, resume=False, killed=False, devices=1, **changes):
    child = os.fork()
    if child == 0:
        parts = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        config = TrainConfig(**(options | changes))
        train_dataset(scenes, config, f"{folder}/{name}", resume=resume, callbacks=[Killed()] * killed)
        os._exit(0)
    return os.waitpid(child, 0)[1]


statuses = [run("whole"), run("part", killed=True), run("part", resume=True)]
statuses.append(run("mirrored", devices=2, strategy="mirrored"))
print(statuses)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folder of a run, of one that was killed in mid-epoch and resumed, and of one on two virtual devices."""
    folder = tmp_path_factory.mktemp("detectors")
    options = json.dumps(asdict(replace(CONFIG, frozen_epochs=0, deterministic=True)))
    done = subprocess.run([sys.executable, "-c", RUNS, folder, options], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("[0, 9, 0, 0]"), done.stderr[-3000:]
    return folder


def test_a_run_that_was_killed_ends_as_if_it_had_not_been_to_the_bit(runs):
    whole, part = (load_model(runs / name / LAST) for name in ("whole", "part"))
    for one, other in zip(whole.get_weights(), part.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_devices_train_what_one_does(runs):
    watched = TASKS["detection"].learning.watched
    alone, shared = (read_rows(runs / name, watched)[0] for name in ("whole", "mirrored"))
    assert shared["loss"] == pytest.approx(alone["loss"], rel=0.2)
    assert shared["val_loss"] == pytest.approx(alone["val_loss"], rel=0.2)
    assert (runs / "mirrored" / "detections.png").is_file()
