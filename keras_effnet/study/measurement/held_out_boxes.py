"""Average precision of a trained detector on the held-out images of a study, and on resamples of them. TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.precision import average_precision
from keras_effnet.evaluation.by_task.boxes import Scenes, collect_scenes
from keras_effnet.models.saving import load_state
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.training.by_task.boxes import detector_for, with_anchors
from keras_effnet.training.by_task.networks import build_model
from keras_effnet.training.checkpoints import LAST, uncompiled

RESAMPLES = 100


@dataclass(frozen=True)
class BoxScores:
    """Average precision of a detector.

    Args:
        ap: Float, COCO's average precision.
        resampled: Tuple of floats, the same on images drawn with replacement: the same draws for all networks.
        images: Int, number of images.
    """

    ap: float
    resampled: tuple[float, ...]
    images: int


def box_scores(dataset: ImageDataset, config: TrainConfig, run_dir: Path) -> BoxScores:
    """Average precision of the last checkpoint of a run on the held-out images of a dataset.

    Args:
        dataset: `ImageDataset` of boxes; its test images report, or validation images without any.
        config: `TrainConfig` of the run.
        run_dir: Path of the run folder.
    """
    config = replace(with_anchors(dataset, config, lambda line: None), weights=None)
    detector = detector_for(dataset, config)
    assert detector is not None
    classes, size = len(dataset.class_names), (detector.image_size, detector.image_size)
    model = build_model(config, classes, task="detection")
    load_state(model, run_dir / LAST)
    scored = uncompiled(model)  # from logits to scores
    held_out = replace(dataset, val=dataset.held_out)
    batches = image_pipeline(held_out, config.image_spec, config.batch_size, detector=detector)
    outputs = ((scored.predict_on_batch(images), labels) for images, labels in batches)
    return resampled_scores(collect_scenes(outputs, anchor_boxes(detector, size), size), classes)


def resampled_scores(scenes: Scenes, classes: int) -> BoxScores:
    """Average precision in some images, and in resamples of them.

    Args:
        scenes: `Scenes`.
        classes: Int, number of classes.
    """
    images = len(scenes.truth)

    def ap(chosen: np.ndarray) -> float:
        truth, found = ([each[index] for index in chosen] for each in (scenes.truth, scenes.found))
        known = any(len(each.boxes) for each in truth)
        return average_precision(truth, found, classes).ap if known else float("nan")

    rng, whole = np.random.default_rng(0), ap(np.arange(images))
    drawn = [ap(rng.integers(0, images, images)) for _ in range(RESAMPLES)]
    return BoxScores(whole, tuple(whole if np.isnan(value) else value for value in drawn), images)
