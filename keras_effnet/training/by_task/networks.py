"""Networks to train: that of a config, with the head of a task, in the precision of this machine. TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from keras_effnet import transfer
from keras_effnet.config.train_config import TRAINING_PRECISIONS, TrainConfig
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.errors import UserError, listed, one_of
from keras_effnet.models.decoders import segmentation_model
from keras_effnet.models.detectors.efficientdet import EfficientDet
from keras_effnet.models.efficientnet import EfficientNet

UNITS = "units"  # name of the layer that gives predicted values their units


@dataclass(frozen=True)
class Units:
    """Mean and standard deviation of each value of a regression, which its network learns to predict in these units.

    Args:
        mean: Tuple of floats.
        deviation: Tuple of floats above 0.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Units:
        """Units of training values of shape `(N, V)`; the deviation of a constant value is 1."""
        values = np.asarray(values, "float64")
        deviation = values.std(axis=0)
        return cls(tuple(values.mean(axis=0).tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist()))


def constant_values(values: np.ndarray, names: Sequence[str]) -> str | None:
    """Sentence about the values of a regression that are the same on all training images; None without any.

    Args:
        values: Array of shape `(N, V)`.
        names: Names of the values.
    """
    constant = [name for name, column in zip(names, values.T, strict=True) if column.min() == column.max()]
    if not constant:
        return None
    return f"The same value on all training images, so that nothing can be learned of it: {listed(constant)}."


def resolve_precision(precision: str) -> str:
    """Resolve a precision to a dtype policy; `"auto"` depends on the devices of this machine.

    Args:
        precision: String, one of `TRAINING_PRECISIONS`.

    Returns:
        String, `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`.

    Raises:
        UserError: An unknown precision.
    """
    one_of("precision", precision, TRAINING_PRECISIONS)
    if precision != "auto":
        return precision
    if tf.config.list_physical_devices("TPU"):
        return "mixed_bfloat16"
    return "mixed_float16" if tf.config.list_physical_devices("GPU") else "float32"


def precision_reason(precision: str) -> str:
    """Describe the dtype policy chosen on this machine and the reason for it."""
    policy = resolve_precision(precision)
    if precision != "auto":
        return f"{policy}, as requested"
    devices = {"mixed_bfloat16": "a TPU", "mixed_float16": "a GPU, with loss scaling"}
    return f"{policy}, because this machine has {devices.get(policy, 'neither GPU nor TPU')}"


def build_model(
    config: TrainConfig,
    classes: int,
    *,
    any_size: bool = False,
    task: DataTask = "classification",
    units: Units | None = None,
) -> keras.Model:
    """Build the network of a config in its precision, with the parts up to `config.freeze` frozen.

    Args:
        config: `TrainConfig`.
        classes: Int, number of classes, labels or values; 2 for the task binary.
        any_size: Bool, whether the input accepts images of any size rather than the network's own.
        task: String, what the network is for: `"classification"` ends in a softmax, `"binary"` in one sigmoid,
            `"multilabel"` in a sigmoid for each label, `"regression"` in values, `"segmentation"` in a softmax for each
            pixel, `"detection"` in the codes of boxes and logits for each anchor.
        units: `Units` of the values of a regression; by default values are predicted as they are.

    Returns:
        A Keras model.
    """
    keras.utils.set_random_seed(config.seed)
    check_kind(config, task)
    model = _HEADS[task](config, classes, any_size, units)
    if config.freeze is not None:
        transfer.freeze(model, config.freeze)
    return model


def check_kind(config: TrainConfig, task: str) -> None:
    """Refuse a detector for other data than boxes, and other networks for boxes.

    Raises:
        UserError: The network does not fit the task.
    """
    if (task == "detection") == (config.detector is not None):
        return
    if task == "detection":
        raise UserError(f"The data has boxes, and {config.model} is no detector: --model det-lite0 is one.")
    raise UserError(f"{config.model} is a detector, and the data has no boxes: its task is {task}.")


def _network(config: TrainConfig, any_size: bool, **head) -> keras.Model:
    spec = config.spec
    return EfficientNet(
        spec,
        weights=config.weights,
        input_shape=(None, None, 3) if any_size else (spec.image_size, spec.image_size, 3),
        dtype=resolve_precision(config.precision),
        **head,
    )


def _classes(config: TrainConfig, classes: int, any_size: bool, units: Units | None) -> keras.Model:
    return _network(config, any_size, classes=classes)


def _decision(config: TrainConfig, classes: int, any_size: bool, units: Units | None) -> keras.Model:
    return _network(config, any_size, classes=1, classifier_activation="sigmoid")


def _labels(config: TrainConfig, classes: int, any_size: bool, units: Units | None) -> keras.Model:
    return _network(config, any_size, classes=classes, classifier_activation="sigmoid")


def _values(config: TrainConfig, classes: int, any_size: bool, units: Units | None) -> keras.Model:
    """Standardized values, followed by a fixed layer that gives them their units."""
    model = _network(config, any_size, classes=classes, classifier_activation=None)
    units = units or Units((0.0,) * classes, (1.0,) * classes)
    layer = keras.layers.Rescaling(list(units.deviation), list(units.mean), dtype="float32", name=UNITS)
    return _with_policy(keras.Model(model.input, layer(model.output), name=model.name), model)


def _masks(config: TrainConfig, classes: int, any_size: bool, units: Units | None) -> keras.Model:
    backbone = _network(config, any_size, include_top=False)
    return segmentation_model(backbone, classes, config.decoder, dropout_rate=config.spec.dropout_rate)


def _boxes(config: TrainConfig, classes: int, any_size: bool, units: Units | None) -> keras.Model:
    detector = config.detector
    assert detector is not None  # checked by `check_kind`
    return EfficientDet(
        replace(detector, classes=classes),
        weights=config.weights,
        classifier_activation=None,
        dtype=resolve_precision(config.precision),
    )


def _with_policy(model: keras.Model, part: keras.Model) -> keras.Model:
    model.dtype_policy = part.dtype_policy  # `compile` reads it to decide on loss scaling
    return model


_HEADS: dict[str, Callable[[TrainConfig, int, bool, Units | None], keras.Model]] = {
    "classification": _classes,
    "binary": _decision,
    "multilabel": _labels,
    "regression": _values,
    "segmentation": _masks,
    "detection": _boxes,
}
