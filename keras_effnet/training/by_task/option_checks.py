"""Training options that do not apply to the task of a dataset. TensorFlow."""

from __future__ import annotations

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.errors import UserError
from keras_effnet.training.by_task.boxes import check_detection
from keras_effnet.training.by_task.networks import check_kind
from keras_effnet.training.by_task.objectives import objective

_OPEN_SIDES = 32  # pixels: a decoder for images of any size takes multiples of it


def check_options(dataset: ImageDataset, config: TrainConfig) -> None:
    """Refuse options that do not apply to the task of a dataset.

    Raises:
        UserError: One does not, or the network is for another task.
    """
    check_kind(config, dataset.task)
    if config.detector is not None:
        check_detection(config)
    learning = objective(dataset.task).learning
    if (config.mixup or config.cutmix) and not learning.mixed:
        raise UserError(f"mixup and cutmix mix one label per image; leave them out for {dataset.task}.")
    if dataset.task == "segmentation" and config.progressive and any(s.image_size % _OPEN_SIDES for s in config.stages):
        raise UserError(
            f"progressive image sizes of segmentation must be multiples of {_OPEN_SIDES}, got {config.progressive}."
        )
    if config.class_weight == "balanced" and not learning.weighted:
        raise UserError(f"class_weight balanced is for classes and labels; leave it out for {dataset.task}.")
