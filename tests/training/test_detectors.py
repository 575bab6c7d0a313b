"""Training of detectors from batches: frozen epochs, average precision, checkpoints, resuming."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_effnet import training
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.annotations import digit_scenes
from keras_effnet.detection import TargetAssigner
from keras_effnet.models.saving import load_model
from keras_effnet.tasks import task_of
from keras_effnet.training.checkpoints import BEST, LAST
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


def fit(folder: Path, batches, **options):
    model = training.build_model(CONFIG, 10, task="detection")
    train, val = batches
    epochs = {1: train, 2: train.repeat(2)}
    training.train(model, lambda stage: epochs[stage.last - stage.first], val, CONFIG, run_dir=folder, **options)
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
