"""Trained networks put to other uses: frozen parts, another head, slower early layers, statistics measured anew.

Keras alone, no `tf.`; imports `anatomy`, `blocks`, `saving`, `errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import keras
import numpy as np

from keras_effnet.architecture.network_parts import Part, parts
from keras_effnet.errors import UserError, one_of
from keras_effnet.models.blocks import LayerOptions, classifier
from keras_effnet.models.saving import policy_of

BACKBONE = "backbone"
_CLASSIFIER = "classifier"
_POOLING = ("avg_pool", "max_pool")


def _stage(part: Part) -> str:
    """`"block5"` of `"block5b"`; the other parts are stages of their own."""
    return f"block{part.stage}" if part.stage else part.name


def _backbone(model: keras.Model) -> tuple[Part, ...]:
    return tuple(part for part in parts(model) if part.name != _CLASSIFIER)


def _is_batch_norm(layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def freeze(model: keras.Model, through: str | None = BACKBONE, *, batch_norm: bool = False) -> None:
    """Keeps a network's first parts as they are; everything behind them becomes trainable.

    A frozen batch normalization is in inference mode, in training too: Keras lets `trainable=False` fix its moving
    statistics beside its gain and offset. Stochastic depth goes on in frozen blocks; build with `drop_connect_rate=0`
    where that is not wanted. Each call counts by itself, so one that names less thaws the rest. Call `compile` after
    it, which is when Keras looks at what is trainable.

    Args:
        model: Model of this package, a reloaded `.keras` too.
        through: String, the last part to freeze: `"stem"`, a stage, `"block5"`, a block, `"block5b"`, or `"backbone"`,
            all but the classifier. None freezes nothing.
        batch_norm: Bool, whether batch normalization behind it rests too, for batches too small to measure by.

    Raises:
        UserError: The model has no part of that name.

    Example:

    >>> keras_effnet.transfer.freeze(model, through="block4")

    Source: the meaning of `trainable`, Keras' guide to transfer learning.
    """
    backbone = _backbone(model)
    # Of a stage the last block counts, so that freezing ends behind the whole of it.
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
    """The same network under a fresh classifier, as flat as before: no model inside the model.

    All layers up to the pooling are shared, so training the one trains the other. A model without classifier gets
    one, and average pooling where it has none.

    Args:
        model: Model of this package, a reloaded `.keras` too.
        classes: Int, outputs of the new classifier.
        dropout_rate: Float in [0, 1), before the classifier; the model's own by default.
        classifier_activation: `"softmax"`, or None for logits.

    Returns:
        A functional `keras.Model` under the dtype policy of `model`, not compiled.

    Raises:
        UserError: `classes` is below 1.

    Example:

    >>> model = keras_effnet.transfer.swap_head(keras_effnet.load_model("flowers.keras"), classes=3)
    """
    if classes < 1:
        raise UserError(f"classes must be at least 1, got {classes}.")
    head = {layer.name: layer for part in parts(model) if part.name == _CLASSIFIER for layer in part.layers}
    policy = policy_of(model)
    if dropout_rate is None:
        dropout_rate = head["top_dropout"].rate if "top_dropout" in head else 0.0
    pooled = next((head[name].output for name in _POOLING if name in head), None)
    if pooled is None:
        pooling = keras.layers.GlobalAveragePooling2D(dtype=policy, name="avg_pool")
        pooled = pooling(_backbone(model)[-1].output)
    options = LayerOptions(keras.layers, spec=None, dtype=policy)  # a classifier reads nothing of the spec
    outputs = classifier(pooled, classes, classifier_activation, dropout_rate, options)
    swapped = keras.Model(model.input, outputs, name=model.name)
    swapped.dtype_policy = policy  # where `compile` looks for loss scaling
    return swapped


def learning_rate_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """By how much slower each stage learns than the classifier: `decay` to the power of its distance from there.

    Args:
        model: Model of this package.
        decay: Float in (0, 1], the ratio between one stage and the next; 1 lets all learn alike.

    Returns:
        A dict from `"stem"`, `"block1"`, ..., `"top"`, `"classifier"` to factors that rise to 1.

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
    """An optimizer for each trainable stage, early ones slower, in Keras' own `MultiOptimizer`.

    Of stock parts, so the model is saved, resumed and opened in plain Keras as with any optimizer. Gradual unfreezing,
    the other half of ULMFiT, is left out: rates that fall towards the input protect early layers from the first
    steps' large gradients as well, without a compilation an epoch.

    Args:
        model: Model of this package. What is to be frozen must be so already.
        decay: Float in (0, 1], see `learning_rate_factors`.
        optimizer: Function from a factor to a Keras optimizer whose learning rate is scaled by it. Its weight decay
            then falls alike, which is as AdamW has it.

    Returns:
        A `keras.optimizers.MultiOptimizer`; the last of its `.optimizers` is the classifier's.

    Example:

    >>> optimizer = layerwise_optimizer(model, 0.7, lambda factor: keras.optimizers.AdamW(1e-3 * factor))
    >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    """
    factors = learning_rate_factors(model, decay)
    names: dict[str, list[str]] = {}
    for part in _backbone(model):
        if any(layer.trainable_weights for layer in part.layers):
            names.setdefault(_stage(part), []).append(part.name)
    # Keras matches the patterns against the paths of variables, "block5b_se_reduce/kernel".
    optimizers = {f"({'|'.join(members)})_.*": optimizer(factors[stage]) for stage, members in names.items()}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer(1.0), optimizers))


class _TrainingMode(keras.Model):
    """A network that computes as in training when it predicts, and predicting is compiled on every backend."""

    def __init__(self, network: keras.Model):
        super().__init__(name="training_mode")  # TensorFlow takes no scope that begins with an underscore
        self.network = network

    def call(self, images):
        return self.network(images, training=True)


@contextmanager
def _measuring(model: keras.Model, norms: list) -> Iterator[None]:
    """Dropout at rest and moving statistics that are those of the last batch; all as before in the end."""
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
    """Measures the batch normalization statistics of a network anew; compiled once, for as often as it is asked.

    Args:
        model: Keras model. What of it is frozen stays as it is.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._norms = [layer for layer in model.layers if _is_batch_norm(layer) and layer.trainable]
        self._probe = _TrainingMode(model)

    def measure(self, batches: Iterable, max_batches: int = 100) -> None:
        """Replaces moving means and variances by those of some batches, see `reestimate_batch_norm`."""
        if not self._norms:
            return
        statistics = [variable for layer in self._norms for variable in (layer.moving_mean, layer.moving_variance)]
        results = [keras.ops.convert_to_numpy(variable) for variable in statistics]  # as before, if a batch fails
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


def reestimate_batch_norm(model: keras.Model, batches: Iterable, max_batches: int = 100) -> None:
    """Measures the batch normalization statistics of a network anew, for the weights that it has now.

    The moving averages of a training trail weights that keep changing, and forget within a few batches a channel that
    fires rarely. Here every batch counts alike, and dropout and stochastic depth rest, as they will in use. What is
    frozen stays as it is.

    Args:
        model: Keras model; its moving means and variances are replaced.
        batches: Batches of images, or of `(images, labels)`.
        max_batches: Int, how many are used at most.

    Example:

    >>> keras_effnet.transfer.reestimate_batch_norm(model, train_batches)

    Source: "precise BN", Wu & Johnson, Rethinking "Batch" in BatchNorm (2021), section 3.
    """
    NormStatistics(model).measure(batches, max_batches)
