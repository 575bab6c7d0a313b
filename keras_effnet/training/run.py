"""Training from a dataset to a complete run folder: network, pipelines, checkpoints, evaluation. TensorFlow."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.architecture.detector_files import DETECTOR_JSON, save_detector
from keras_effnet.config.resizing import ResizeStage
from keras_effnet.config.run_record import RunRecord, data_arguments
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.findings.data_identity import check_identity, save_identity
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.errors import UserError, check_path, instance_of, unreadable_input
from keras_effnet.imagenet import readable
from keras_effnet.models.saving import load_state
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.system.files import WriteError, atomic_group, disk_full, write_text
from keras_effnet.system.run_folders import write_environment
from keras_effnet.training.by_task.boxes import detector_for, with_anchors
from keras_effnet.training.by_task.judging import judge, judge_better_statistics
from keras_effnet.training.by_task.networks import Units, build_model, constant_values, precision_reason
from keras_effnet.training.by_task.objectives import balanced_weights, objective
from keras_effnet.training.by_task.option_checks import check_options
from keras_effnet.training.checkpoints import (
    BEST,
    LAST,
    next_step,
    read_rows,
    resumable,
    save_model,
    uncompiled,
    writing_to,
)
from keras_effnet.training.contact_sheets import box_sheet, contact_sheet
from keras_effnet.training.distribution import check_strategy, is_chief, scope
from keras_effnet.training.input_pipelines import Pipelines, build_pipelines
from keras_effnet.training.loop import train

_SHOWN = 16  # images in augmented.png
_CACHE = "cache"  # a folder within the run's, while it trains
_ORPHAN = 30.0  # seconds that a training of a killed study may take to notice that it is an orphan


@dataclass(frozen=True, eq=False)
class TrainResult:
    """Result of a finished training.

    Args:
        run_dir: Path of the run folder.
        model: The network with its best weights.
        evaluation: Metrics of the best weights on the dataset's `val` split: `Evaluation` of a classifier, for other
            tasks `BinaryEvaluation`, `LabelEvaluation`, `ValueEvaluation`, `MaskEvaluation` or `BoxEvaluation` of
            `evaluation.by_task`.
        epochs: Int, epochs completed at the last checkpoint.
        score: Float, the watched metric on the `val` split: accuracy, mAP, R², mean IoU or AP.
    """

    run_dir: Path
    model: keras.Model
    evaluation: Any
    epochs: int
    score: float = math.nan


def _describe(dataset: ImageDataset, config: TrainConfig, folder: Path) -> None:
    """Write the metadata that `eval`, `predict`, `export` and a resumed run read."""
    if not is_chief():
        return
    with atomic_group(folder) as staged:
        RunRecord(data_arguments(dataset.origin), config).save(folder, staged=staged)
        write_text(staged / "labels.txt", "".join(f"{name}\n" for name in dataset.class_names))
        config.image_spec.save(staged / "image_spec.json")
        if detector := detector_for(dataset, config):
            save_detector(detector, staged / DETECTOR_JSON)
        save_identity(dataset, staged)
        write_environment(staged)


@contextmanager
def _occupied(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Create and lock the run folder in the process that writes; remove the cached images, however the run ends."""
    with writing_to(folder, wait=wait):
        try:
            yield
        except Exception as error:
            if isinstance(error, WriteError) or disk_full(
                error
            ):  # TensorFlow reports a full disk of the cache by an error of its own
                raise resumable(error, folder) from None
            if reason := unreadable_input(error):
                raise UserError(
                    f"An image of the data changed or vanished during training ({reason}). Restore it, and "
                    f"{next_step(folder)}"
                ) from None
            raise
        finally:
            if is_chief():
                shutil.rmtree(folder / _CACHE, ignore_errors=True)


def fit_dataset(dataset: ImageDataset, config: TrainConfig, run_dir: str | Path, **options) -> None:
    """Train without the final evaluation: write checkpoints, results and `args.yaml`. Arguments as `train_dataset`."""
    check_options(dataset, config)
    announce = options.get("announce", lambda line: None)
    with _occupied(Path(run_dir), wait=_ORPHAN):
        _fit(dataset, with_anchors(dataset, config, announce), Path(run_dir), **options)


def _network(dataset: ImageDataset, config: TrainConfig, **options: Any) -> keras.Model:
    """The network of a config for a dataset."""
    units = Units.of(dataset.train.labels) if dataset.task == "regression" else None
    return build_model(config, len(dataset.class_names), task=dataset.task, units=units, **options)


def _fit(
    dataset: ImageDataset,
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    announce: Callable[[str], None] = lambda line: None,
) -> Pipelines:
    """Build the network and the pipelines of a config, train, and return the pipelines for `_finish`."""
    if not len(dataset.train):
        raise UserError(f"{dataset.name} has no images to train on: all of them belong to its test split.")
    if resume:
        check_identity(dataset, folder)
    if dataset.task == "regression" and (told := constant_values(dataset.train.labels, dataset.class_names)):
        announce(told)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    announce(f"Precision: {precision_reason(config.precision)}.")
    pipelines = build_pipelines(dataset, config, folder / _CACHE, announce)
    weights = balanced_weights(dataset) if config.class_weight == "balanced" else None
    # Written when training begins, so that a refused resume leaves the run folder unchanged.
    describing = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: _describe(dataset, config, folder))
    check_strategy(config.strategy, gradient_accumulation=config.accumulate)
    with scope(config.strategy):
        train(
            _network(dataset, config, any_size=config.progressive is not None),
            pipelines.train,
            pipelines.val,
            config,
            run_dir=folder,
            resume=resume,
            task=dataset.task,
            class_weights=weights,
            callbacks=[describing, *callbacks],
        )
    return pipelines


def predict_held_out(dataset: ImageDataset, config: TrainConfig, run_dir: str | Path) -> np.ndarray:
    """Predictions of the last checkpoint of a run for the held-out images of a dataset.

    Args:
        dataset: `ImageDataset`, not of boxes; its test images are predicted, or validation images without any.
        config: `TrainConfig` of the run.
        run_dir: Run folder.

    Returns:
        Float array of shape `(N, ...)`, in the order of `dataset.held_out`.
    """
    model = uncompiled(_network(dataset, replace(config, weights=None)))
    load_state(model, Path(run_dir) / LAST)
    held_out = replace(dataset, val=dataset.held_out)
    return model.predict(image_pipeline(held_out, config.image_spec, config.batch_size), verbose=0)


def train_dataset(
    dataset: ImageDataset,
    config: TrainConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    announce: Callable[[str], None] = lambda line: None,
) -> TrainResult | None:
    """Train a network on a dataset and write a complete run folder.

    The network and its input pipelines are built from the config. After training, the batch normalization statistics of
    the best weights are re-estimated, see `transfer.reestimate_batch_norm`, and kept if the network scores higher with
    them on the `val` split. In addition to the files of `train`, the
    folder gets `args.yaml`, `env.json`, `labels.txt`, `image_spec.json`, `augmented.png` and a figure of the
    task (`confusion.png`, `precision_recall.png` with `thresholds.csv`, `scatter.png` or `masks.png`), so that
    `eval`, `predict` and `export` need only the folder. A detector gets anchors that fit the boxes of the data, unless
    the config sets them, and `detector.json`.

    Args:
        dataset: `ImageDataset`.
        config: `TrainConfig`.
        run_dir: Run folder, created if it does not exist.
        resume: Bool, whether to resume from the last checkpoint in `run_dir`.
        callbacks: Further Keras callbacks.
        announce: Function called with a line of text for each automatic choice, such as cache and precision.

    Returns:
        A `TrainResult`; None in all but the first of several processes that train together.

    Raises:
        UserError: The dataset has no training images, another process uses the folder, or training fails, see `train`.
    """
    instance_of(
        "dataset", dataset, ImageDataset, "load it with datasets.load; batches of tf.data go to training.train."
    )
    instance_of("config", config, TrainConfig)
    check_path("run_dir", run_dir)
    check_options(dataset, config)
    config = with_anchors(dataset, config, announce)
    folder = Path(run_dir)
    with _occupied(folder):
        pipelines = _fit(dataset, config, folder, resume=resume, callbacks=callbacks, announce=announce)
        return _finish(dataset, config, folder, pipelines, announce) if is_chief() else None


def _finish(
    dataset: ImageDataset, config: TrainConfig, folder: Path, pipelines: Pipelines, announce: Callable[[str], None]
) -> TrainResult:
    """Choose the batch normalization statistics of the best weights, evaluate them and draw the plots."""
    model = uncompiled(_network(dataset, replace(config, weights=None)))
    load_state(model, folder / BEST)
    batches = pipelines.train(ResizeStage(0, 1, config.image_spec.size))
    detector = detector_for(dataset, config)
    # Before anything is saved: a network that predicts NaN is refused here.
    result = judge_better_statistics(
        model, batches, lambda: judge(model, pipelines.judged, dataset, detector), announce
    )
    save_model(model, folder / BEST)
    names = readable(dataset.class_names)
    images, labels = next(iter(batches.take(1)))
    images, labels = images[:_SHOWN], tf.nest.map_structure(lambda each: each[:_SHOWN], labels)
    if detector is None:
        contact_sheet(images, labels, folder / "augmented.png", class_names=names, task=dataset.task)
    else:
        box_sheet(images, labels, anchor_boxes(detector), folder / "augmented.png", names)
    result.draw(names, folder)
    epochs = int(read_rows(folder, objective(dataset.task).learning.watched)[-1]["epoch"])
    return TrainResult(folder, model, result.evaluation, epochs, result.score)
