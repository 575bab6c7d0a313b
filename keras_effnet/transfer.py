"""Transfer learning: freezing, new heads, layer-wise learning rates, batch normalization recalibration. Keras only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import keras
import numpy as np

from keras_effnet.architecture.network_parts import Part, parts
from keras_effnet.errors import UserError, one_of
from keras_effnet.models.arguments import check_data_format, checked_classes
from keras_effnet.models.batch_norm import fused_layers
from keras_effnet.models.blocks import classifier
from keras_effnet.models.saving import policy_of

BACKBONE = "backbone"
_CLASSIFIER = "classifier"
_POOLING = ("avg_pool", "max_pool")


def _stage(part: Part) -> str:
    """`"block5"` for `"block5b"`; other parts are stages themselves."""
    return f"block{part.stage}" if part.stage else part.name


def _backbone(model: keras.Model) -> tuple[Part, ...]:
    return tuple(part for part in parts(model) if part.name != _CLASSIFIER)


def _is_batch_norm(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def freeze(model: keras.Model, through: str | None = BACKBONE, *, batch_norm: bool = False) -> None:
    """Freeze the first parts of a network and make all later ones trainable.

    In Keras a frozen batch normalization runs in inference mode: its moving statistics are fixed, too. Stochastic depth
    stays active in frozen blocks; build with `drop_connect_rate=0` to avoid that. Each call replaces the effect of
    earlier ones. Call `compile` afterwards, because Keras reads `trainable` then.

    Args:
        model: Model of this package, built or reloaded.
        through: String, the last part to freeze: `"stem"`, a stage such as `"block5"`, a block such as `"block5b"`, or
            `"backbone"` for all but the classifier. None freezes nothing.
        batch_norm: Bool, whether to freeze batch normalization in later parts too, for small batches.

    Raises:
        UserError: The model has no such part.

    Example:

    >>> keras_effnet.transfer.freeze(model, through="block4")

    Source: Keras' guide to transfer learning, on `trainable`.
    """
    backbone = _backbone(model)
    # For a stage the position of its last block remains.
    ends = {name: end for end, part in enumerate(backbone, 1) for name in (part.name, _stage(part))}
    ends[BACKBONE] = len(backbone)
    end = 0 if through is None else ends[one_of("part to freeze", through, ends)]
    for position, part in enumerate(parts(model)):
        for layer in part.layers:
            layer.trainable = position >= end and not (batch_norm and _is_batch_norm(layer))


def swap_head(
    model: keras.Model,
    classes: int,
    *,
    dropout_rate: float | None = None,
    classifier_activation: str | None = "softmax",
) -> keras.Model:
    """Replace the classifier of a network by a randomly initialized one.

    The result is a flat functional model that shares all layers up to the pooling with `model`, so training one trains
    the other. A model without classifier gets one, with average pooling if it has no pooling.

    Args:
        model: Model of this package, built or reloaded.
        classes: Int, outputs of the new classifier.
        dropout_rate: Float in [0, 1), before the classifier; the model's by default.
        classifier_activation: `"softmax"`, or None for logits.

    Returns:
        A functional `keras.Model` with the dtype policy of `model`, not compiled.

    Raises:
        UserError: `classes` is no whole number from 1, or Keras is set to channels first.

    Example:

    >>> model = keras_effnet.transfer.swap_head(keras_effnet.load_model("flowers.keras"), classes=3)
    """
    check_data_format()
    classes = checked_classes(classes)
    head = {layer.name: layer for part in parts(model) if part.name == _CLASSIFIER for layer in part.layers}
    policy = policy_of(model)
    if dropout_rate is None:
        dropout_rate = head["top_dropout"].rate if "top_dropout" in head else 0.0
    pooled = next((head[name].output for name in _POOLING if name in head), None)
    if pooled is None:
        pooling = keras.layers.GlobalAveragePooling2D(dtype=policy, name="avg_pool")
        pooled = pooling(_backbone(model)[-1].output)
    outputs = classifier(pooled, classes, classifier_activation, dropout_rate, policy)
    swapped = keras.Model(model.input, outputs, name=model.name)
    swapped.dtype_policy = policy  # `compile` reads it to decide on loss scaling
    return swapped


def learning_rate_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """Learning rate factor of each stage: `decay` to the power of its distance from the classifier.

    Args:
        model: Model of this package.
        decay: Float in (0, 1], ratio between one stage and the next; 1 gives all stages the same rate.

    Returns:
        A dict from `"stem"`, `"block1"`, ..., `"top"`, `"classifier"` to factors, increasing to 1.

    Raises:
        UserError: `decay` is out of range.

    Example:

    >>> factors = learning_rate_factors(keras_effnet.EfficientNetB0(weights=None), 0.5)
    >>> factors["classifier"], factors["top"], factors["block7"]
    (1.0, 0.5, 0.25)

    Source: discriminative fine-tuning, Howard & Ruder, ULMFiT (ACL 2018), section 3.2.
    """
    if not 0 < decay <= 1:
        raise UserError(f"The decay of learning rates must lie in (0, 1], got {decay}.")
    stages = [*dict.fromkeys(map(_stage, _backbone(model))), _CLASSIFIER]
    return {stage: decay ** (len(stages) - position) for position, stage in enumerate(stages, 1)}


def layerwise_optimizer(
    model: keras.Model, decay: float, optimizer: Callable[[float], keras.optimizers.Optimizer]
) -> keras.optimizers.MultiOptimizer:
    """Build a Keras `MultiOptimizer` with a lower learning rate for earlier stages.

    It consists of stock optimizers, so the model can be saved, resumed and reloaded in plain Keras. ULMFiT's gradual
    unfreezing is not included: lower rates also protect early layers from the large gradients of the first steps, and
    need no recompilation.

    Args:
        model: Model of this package, with layers frozen as wanted.
        decay: Float in (0, 1], see `learning_rate_factors`.
        optimizer: Function from a factor to a Keras optimizer whose learning rate is scaled by it. The weight decay of
            AdamW then scales alike.

    Returns:
        A `keras.optimizers.MultiOptimizer`; the last of its `.optimizers` is that of the classifier.

    Example:

    >>> optimizer = layerwise_optimizer(model, 0.7, lambda factor: keras.optimizers.AdamW(1e-3 * factor))
    >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    """
    factors = learning_rate_factors(model, decay)
    names: dict[str, list[str]] = {}
    for part in _backbone(model):
        if any(layer.trainable_weights for layer in part.layers):
            names.setdefault(_stage(part), []).append(part.name)
    # Keras matches the patterns against paths of variables, such as "block5b_se_reduce/kernel".
    optimizers = {f"({'|'.join(members)})_.*": optimizer(factors[stage]) for stage, members in names.items()}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer(1.0), optimizers))


class _TrainingMode(keras.Model):
    """Network in training mode under `predict_on_batch`, which is compiled on every backend."""

    def __init__(self, network: keras.Model):
        super().__init__(name="training_mode")  # TensorFlow allows no scope that starts with an underscore
        self.network = network

    def call(self, images: Any) -> Any:
        with fused_layers(self.network):
            return self.network(images, training=True)


@contextmanager
def _measuring(model: keras.Model, norms: list[Any]) -> Iterator[None]:
    """Disable dropout and set moving statistics to those of the last batch; restored after the block."""
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    momenta, rates = [layer.momentum for layer in norms], [layer.rate for layer in drops]
    try:
        for layer in norms:
            layer.momentum = 0.0
        for layer in drops:
            layer.rate = 0.0
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for layer, rate in zip(drops, rates, strict=True):
            layer.rate = rate


class NormStatistics:
    """Recalibration of batch normalization statistics, compiled once for repeated use.

    Args:
        model: Keras model; frozen layers keep their statistics.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._norms = [layer for layer in model.layers if _is_batch_norm(layer) and layer.trainable]
        self._probe = _TrainingMode(model)

    def measure(self, batches: Iterable[Any], max_batches: int = 100) -> None:
        """Replace moving means and variances by those of some batches, see `reestimate_batch_norm`."""
        if not self._norms:
            return
        statistics = [variable for layer in self._norms for variable in (layer.moving_mean, layer.moving_variance)]
        results = [keras.ops.convert_to_numpy(variable) for variable in statistics]  # restored if a batch fails
        totals, seen = [np.zeros(variable.shape) for variable in statistics], 0
        try:
            with _measuring(self._model, self._norms):
                for batch in islice(batches, max_batches):
                    images = batch[0] if isinstance(batch, (tuple, list)) else batch
                    self._probe.predict_on_batch(keras.ops.convert_to_numpy(images))
                    measured = map(keras.ops.convert_to_numpy, statistics)
                    totals = [total + value for total, value in zip(totals, measured, strict=True)]
                    seen += 1
            if seen:
                results = [total / seen for total in totals]
        finally:
            for variable, result in zip(statistics, results, strict=True):
                variable.assign(result)


def reestimate_batch_norm(model: keras.Model, batches: Iterable[Any], max_batches: int = 100) -> None:
    """Recalibrate the batch normalization statistics of a network for its current weights.

    Moving averages lag behind changing weights and soon forget channels that rarely activate. Here all batches have the
    same weight, and dropout and stochastic depth are off, as in inference. Frozen layers keep their statistics.

    Args:
        model: Keras model; its moving means and variances are replaced.
        batches: Batches of images, or of `(images, labels)`.
        max_batches: Int, maximum number of batches to use.

    Example:

    >>> keras_effnet.transfer.reestimate_batch_norm(model, train_batches)

    Source: "precise BatchNorm", Wu & Johnson, Rethinking "Batch" in BatchNorm (2021), section 3.
    """
    NormStatistics(model).measure(batches, max_batches)
