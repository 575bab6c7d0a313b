"""The detector of a training: its anchors chosen by the boxes of the data. TensorFlow is not used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.config.detectors import aspects_text
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.detection.anchor_findings import input_boxes
from keras_effnet.detection.fitting import AnchorFit, anchor_fit, proposed_anchors
from keras_effnet.detection.precision import check_installed
from keras_effnet.errors import UserError

_SAMPLE = 600  # boxes that choose the anchors
_GAIN = 0.01  # of the boxes, that other anchors must reach in addition


def check_detection(config: TrainConfig) -> None:
    """Check a training of a detector before it begins.

    Raises:
        UserError: Average precision cannot be computed, or an option is for classifiers alone.
    """
    check_installed()
    if config.strategy == "data-parallel" or keras.backend.backend() != "tensorflow":
        raise UserError("Detectors train on the TensorFlow backend, with strategy none or mirrored.")
    if config.progressive is not None:
        raise UserError("progressive changes the image size, to which the anchors of a detector belong: leave it out.")


def detector_for(dataset: ImageDataset, config: TrainConfig) -> DetectorSpec | None:
    """The detector of a config, with the classes of a dataset; None for other networks."""
    detector = config.detector
    return None if detector is None else replace(detector, classes=len(dataset.class_names))


def network_boxes(dataset: ImageDataset, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """True boxes of the training images in pixels of the network's input, without crowds, and their classes."""
    spec = config.image_spec
    return input_boxes(dataset.train.labels, spec.size, spec.fit)


def with_anchors(dataset: ImageDataset, config: TrainConfig, announce: Callable[[str], None]) -> TrainConfig:
    """A config with the anchors that fit the boxes of the training images, unless it sets them.

    Anchors belong to trained weights, so those of the table are kept if `weights` is a file.

    Args:
        dataset: `ImageDataset`.
        config: `TrainConfig`.
        announce: Function called with a line about the choice.

    Raises:
        UserError: There is no box to train on, or none to validate on.
    """
    detector = detector_for(dataset, config)
    if detector is None:
        return config
    for split, use in ((dataset.train, "train"), (dataset.val, "validate")):
        if split.labels.crowd.all():
            kept = "only boxes of groups (iscrowd)" if len(split.labels.crowd) else "no box"
            raise UserError(f"{dataset.name} has {kept} to {use} on.")
    boxes, classes = network_boxes(dataset, config)
    size = (detector.image_size, detector.image_size)
    fixed = config.anchor_scale is not None or config.anchor_aspects is not None
    chosen = detector
    if not fixed and config.weights in (None, "imagenet") and len(boxes) >= len(detector.aspects):
        rows = np.random.default_rng(config.seed).permutation(len(boxes))[:_SAMPLE]
        chosen = proposed_anchors(detector, boxes[rows], classes[rows], size, smallest=config.scale_low, gain=_GAIN)
    fit = anchor_fit(chosen, boxes, classes, size)
    announce(f"Anchors: scale {chosen.anchor_scale:g}, aspects {aspects_text(chosen.aspects)}; {_reach(dataset, fit)}.")
    return replace(config, anchor_scale=chosen.anchor_scale, anchor_aspects=aspects_text(chosen.aspects))


def _reach(dataset: ImageDataset, fit: AnchorFit) -> str:
    pairs = zip(fit.by_class, dataset.class_names, strict=True)
    share, name = min(pair for pair in pairs if not math.isnan(pair[0]))
    worst = f", of {name} {share:.0%}" if share < fit.reached - 0.05 else ""
    return f"they reach {fit.reached:.0%} of the boxes{worst}"
