"""Losses of detectors in Keras, frozen epochs, and validation."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.config.detectors import aspects_text
from keras_effnet.config.resizing import ResizeStage
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.labels.boxes import Boxes, ImageBoxes
from keras_effnet.datasets.splits import ImageDataset, Split
from keras_effnet.detection import detection_loss
from keras_effnet.errors import UserError
from keras_effnet.training.by_task.boxes import with_anchors
from keras_effnet.training.by_task.networks import check_kind
from keras_effnet.training.by_task.objectives import objective
from keras_effnet.training.loop import _thawing
from keras_effnet.training.precision_watch import PrecisionWatch


def test_the_losses_of_both_outputs_add_up_to_the_detection_loss():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((2, 30)) < 0.2, rng.integers(0, 3, (2, 30)), -1).astype("int32")
    targets = {"labels": tf.constant(labels), "codes": tf.constant(rng.normal(size=(2, 30, 4)), tf.float32)}
    outputs = {
        "boxes": tf.constant(rng.normal(size=(2, 30, 4)), tf.float32),
        "logits": tf.constant(rng.normal(size=(2, 30, 3)), tf.float32),
    }
    aim = objective("detection")
    wanted = aim.targets(targets, 3)
    losses = aim.loss(None, TrainConfig(model="det-lite0"), None)
    total = sum(float(losses[name](wanted[name], outputs[name])) for name in ("boxes", "logits"))
    assert total == pytest.approx(float(detection_loss(targets, outputs)), rel=1e-6)
    half = {name: loss.dtype for name, loss in losses.items()}
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = {name: loss.dtype for name, loss in objective("detection").loss(None, TrainConfig(), None).items()}
    finally:
        keras.config.set_dtype_policy(with_policy)
    assert set(half.values()) == {"float32"}


@pytest.mark.parametrize(
    ("frozen", "parts"),
    [(0, [(0, 4), (4, 8)]), (3, [(0, 3), (3, 4), (4, 8)]), (4, [(0, 4), (4, 8)]), (9, [(0, 4), (4, 8)])],
)
def test_stages_are_divided_where_the_frozen_epochs_end(frozen, parts):
    found = _thawing([ResizeStage(0, 4, 64), ResizeStage(4, 8, 96)], frozen)
    assert [(stage.first, stage.last) for stage in found] == parts


def test_precision_is_measured_every_few_epochs_and_in_the_last():
    watch = PrecisionWatch(lambda model: {"loss": 1.0, "ap": 0.5, "ap50": 0.7}, every=2, epochs=5)
    watch.set_model(keras.Sequential())
    rows = []
    for epoch in range(5):
        logs = {}
        watch.on_epoch_end(epoch, logs)
        rows.append(logs["val_ap"])
    assert [epoch for epoch, value in enumerate(rows, 1) if not math.isnan(value)] == [2, 4, 5]


def test_network_and_data_must_both_be_for_boxes():
    with pytest.raises(UserError, match="The data has boxes, and b0 is no detector: --model det-lite0 is one"):
        check_kind(TrainConfig(), "detection")
    with pytest.raises(UserError, match="det-lite0 is a detector, and the data has no boxes: its task is binary"):
        check_kind(TrainConfig(model="det-lite0"), "binary")


def boxed(train, val, crowd=False):
    """A dataset of 32 x 32 pixels with that many boxes on its images of each split."""

    def split(count):
        corner = np.linspace(0, 10, count)[:, None]
        boxes = np.concatenate([corner, corner, corner + 9, corner + 12], axis=1)
        labelled = ImageBoxes(boxes, np.zeros(count, "int32"), np.full(count, crowd))
        return Split(np.zeros((1, 32, 32, 3), "uint8"), Boxes.of_images([labelled], [(32, 32)]))

    return ImageDataset("cells", ("a", "b"), split(train), split(val), task="detection")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((0, 3), "cells has no box to train on"),
        ((3, 0), "cells has no box to validate on"),
        ((3, 3, True), r"cells has only boxes of groups \(iscrowd\) to train on"),
    ],
)
def test_splits_without_boxes_are_refused_before_the_training(data, told):
    with pytest.raises(UserError, match=told):
        with_anchors(boxed(*data), TrainConfig(model="det-lite0", image_size=64), print)


def test_fewer_boxes_than_aspects_keep_the_anchors_of_the_network():
    config = TrainConfig(model="det-lite0", image_size=64)
    found = with_anchors(boxed(1, 1), config, lambda line: None)
    assert found.anchor_aspects == aspects_text(config.detector.aspects)
    assert with_anchors(boxed(9, 1), config, lambda line: None).anchor_aspects != found.anchor_aspects
