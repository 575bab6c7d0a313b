"""Batches that a training and its evaluation read. TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_effnet.config.resizing import ResizeStage
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.folders import Progress
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.errors import UserError
from keras_effnet.pipeline.augmentation import Augmentation
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.pipeline.caching import cached_split, choose_cache
from keras_effnet.pipeline.packed_cache import PACKED, estimate, obstacle, packed_dataset, packed_folder
from keras_effnet.training.by_task.boxes import detector_for


def _augmentation(dataset: ImageDataset, config: TrainConfig) -> Augmentation:
    return Augmentation(
        crop_scale=(config.crop_scale, 1.0),
        flip=dataset.train.mirror if config.flip is None else config.flip,
        policy=config.policy,
        layers=config.policy_layers,
        magnitude=config.magnitude,
        color_jitter=config.color_jitter,
        erasing=config.erasing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        scale_jitter=(config.scale_low, config.scale_high),
        mosaic=config.mosaic,
    )


@dataclass(frozen=True, eq=False)
class Pipelines:
    """Training and validation batches.

    Args:
        train: Function from a `ResizeStage` to the batches of all its epochs.
        val: `tf.data.Dataset` of `(images, labels)` in batches, for every epoch.
        judged: The same of the validation images themselves, where `val` reads a downscaled copy.
    """

    train: Callable[[ResizeStage], tf.data.Dataset]
    val: tf.data.Dataset
    judged: tf.data.Dataset


def prepare_cache(
    dataset: ImageDataset,
    config: TrainConfig,
    announce: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int], Progress] = lambda description, total: iter,
) -> ImageDataset:
    """The images that training reads: with `cache="packed"` those of the copy, which is written if need be.

    Args:
        dataset: `ImageDataset`.
        config: `TrainConfig`.
        announce: Function called with a line of text for each thing that is done.
        progress: Function of a description and a total that returns a wrapper of an iteration, for a progress bar.

    Raises:
        UserError: The data cannot be packed, see `pipeline.packed_cache`.
    """
    if config.cache != PACKED:
        return dataset
    if config.data_service or config.strategy == "data-parallel":
        raise UserError(
            f"cache={PACKED!r} is for one process that reads the images itself; run `keras-effnet pack` and train on "
            "its folder instead."
        )
    return packed_dataset(dataset, _largest_size(config), announce, progress)


def _largest_size(config: TrainConfig) -> int:
    return max(config.image_spec.size, *(stage.image_size for stage in config.stages))


def _offer_packing(dataset: ImageDataset, config: TrainConfig, announce: Callable[[str], None]) -> None:
    """Say what a packed copy would save, if it can be made and saves time."""
    if obstacle(dataset) is not None or config.data_service:
        return
    saving = estimate(dataset, _largest_size(config))
    if saving.worth_offering:
        announce(f"With --cache packed, {saving}; the copy would be {packed_folder(dataset, _largest_size(config))}.")


def build_pipelines(
    dataset: ImageDataset, config: TrainConfig, folder: Path, announce: Callable[[str], None] = lambda line: None
) -> Pipelines:
    """Build the training and validation batches of a config.

    Args:
        dataset: `ImageDataset`.
        config: `TrainConfig`.
        folder: Path of a folder for a cache on disk, which exists as long as the training runs.
        announce: Function called with a line of text for each automatic choice.
    """
    spec, classes, detector = config.image_spec, len(dataset.class_names), detector_for(dataset, config)
    anchored: dict[str, Any] = {} if detector is None else {"detector": detector}
    read = prepare_cache(dataset, config, announce)
    if read is dataset:
        cache = choose_cache(dataset.train, config.cache, folder)
        announce(f"Cache: {cache.reason}.")
        if config.cache == "auto" and cache.kind in ("disk", "none"):
            _offer_packing(dataset, config, announce)
    else:
        cache = choose_cache(read.train)
        announce(f"Cache: images are read from {packed_folder(dataset, _largest_size(config))}; {cache.reason}.")
    images, augmentation = cached_split(read.train, cache), _augmentation(dataset, config)

    def batches(stage: ResizeStage) -> tf.data.Dataset:
        return image_pipeline(
            images,
            replace(spec, size=stage.image_size),
            config.batch_size,
            training=True,
            augmentation=augmentation.scaled(stage.strength),
            epochs=(stage.first, stage.last),
            classes=classes,
            service=config.data_service,
            seed=config.seed,
            **anchored,
        )

    judged = image_pipeline(dataset, spec, config.batch_size, **anchored)
    val = judged if read is dataset else image_pipeline(read, spec, config.batch_size, **anchored)
    return Pipelines(batches, val, judged)
