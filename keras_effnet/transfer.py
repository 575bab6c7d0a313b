"""Transfer learning: freezing, new heads, layer-wise learning rates, batch normalization recalibration. Keras only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from keras_effnet.architecture.network_parts import Part, computing_layers
from keras_effnet.errors import UserError, one_of
from keras_effnet.models.arguments import check_data_format, checked_classes
from keras_effnet.models.batch_norm import fused_layers
from keras_effnet.models.blocks import classifier
from keras_effnet.models.saving import policy_of
from keras_effnet.models.structure import CLASSIFIER, Structure, containers, inlined, is_nested, structure_of

BACKBONE = "backbone"
_AUGMENTING = ("Random", "Gaussian", "AugMix", "CutMix", "MixUp", "RandAugment")  # layers, by the start of their class

Replace: TypeAlias = Literal["classifier", "head"]


def _stage(part: Part) -> str:
    """`"block5"` for `"block5b"`; other parts are stages themselves."""
    return f"block{part.stage}" if part.stage else part.name


def _is_batch_norm(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _thaw_containers(model: keras.Model) -> None:
    """Make models trainable that were frozen as a whole, which hides what their layers say; those stay as they are."""
    for each in containers(model):
        if not each.trainable:
            states = [(layer, layer.trainable) for layer in computing_layers(each)]
            each.trainable = True
            for layer, state in states:
                layer.trainable = state


def freeze(model: keras.Model, through: str | None = BACKBONE, *, batch_norm: bool = False) -> None:
    """Freeze the first parts of a network and make all later ones trainable.

    In Keras a frozen batch normalization runs in inference mode: its moving statistics are fixed, too. Stochastic depth
    stays active in frozen blocks; build with `drop_connect_rate=0` to avoid that. Each call replaces the effect of
    earlier ones. Call `compile` afterwards, because Keras reads `trainable` then.

    Args:
        model: Keras model with any head or none, nested or reloaded; of this package, of `keras.applications` or
            another one with convolutions.
        through: String, the last part to freeze: a level of `features` such as `"P3"`, or `"backbone"` for all but the
            head; in networks with the layer names of this package also `"stem"`, a stage such as `"block5"`, or a
            block such as `"block5b"`. None freezes nothing.
        batch_norm: Bool, whether to freeze batch normalization in later parts too, for small batches.

    Raises:
        UserError: The model has no such part, or no feature maps.

    Example:

    >>> keras_effnet.transfer.freeze(model, through="block4")
    >>> keras_effnet.transfer.freeze(keras.applications.ResNet50(weights=None), through="P4")

    Source: Keras' guide to transfer learning, on `trainable`.
    """
    structure = structure_of(model)
    backbone = structure.parts
    # For a stage the position of its last block remains.
    ends = {name: end for end, part in enumerate(backbone, 1) for name in (part.name, _stage(part))}
    ends |= {level: backbone.index(part) + 1 for level, part in structure.levels.items()}
    ends[BACKBONE] = len(backbone)
    end = 0 if through is None else ends[one_of("part to freeze", through, ends)]
    _thaw_containers(model)
    frozen = [layer for part in backbone[:end] for layer in part.layers]
    later = [layer for part in backbone[end:] for layer in part.layers]
    for layer in frozen:
        layer.trainable = False
    for layer in (*later, *structure.head):
        layer.trainable = not (batch_norm and _is_batch_norm(layer))


def _free_name(name: str, network: keras.Model) -> str:
    """A name that no layer has: `"predictions"`, `"predictions_1"`, ..."""
    taken = {layer.name for layer in network.layers}
    return next(each for number in count() if (each := f"{name}_{number}" if number else name) not in taken)


def _pooled(structure: Structure, policy: Any) -> Any:
    """Output of the pooling of a network without its head, which gets average pooling if it has none."""
    found = structure.pooling_of(structure.model.outputs[0])
    if found is not None:
        return found[1] if len(found[1].shape) == 2 else keras.layers.Flatten(dtype=policy)(found[1])
    pooling = keras.layers.GlobalAveragePooling2D(dtype=policy, name=_free_name("avg_pool", structure.model))
    return pooling(structure.parts[-1].output)


def _kept(structure: Structure, policy: Any) -> tuple[Any, float]:
    """Tensor that a new classifier reads so that no other layer with weights is lost, and the old dropout rate."""
    output = structure.model.outputs[0]
    old, _ = structure.classifier_of(output)
    if old is None:
        if len(output.shape) == 2:
            return output, 0.0
        lost = [layer.name for layer in structure.head if layer.weights]
        if lost:
            names = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
            raise UserError(
                f"A new classifier would drop layers of {structure.model.name} with weights ({names}): "
                "pass replace='head' to drop all that follows the backbone."
            )
        return _pooled(structure, policy), 0.0
    (given,) = structure.inputs[old]
    before = structure.producer(given)
    if isinstance(before, keras.layers.Dropout):
        return structure.inputs[before][0], before.rate
    return given, 0.0


def swap_head(
    model: keras.Model,
    classes: int,
    *,
    dropout_rate: float | None = None,
    classifier_activation: str | None = "softmax",
    replace: Replace = "classifier",
) -> keras.Model:
    """Replace the classifier of a network by a randomly initialized one.

    Only the last dense layer is dropped, with the dropout before it and the activation behind it: other trained layers
    of the head, such as a hidden dense layer, are kept unless `replace="head"` says otherwise. The result is a flat
    functional model that shares all other layers with `model`, so training one trains the other; `model` itself keeps
    its classifier. A model without classifier gets one, with average pooling if it has no pooling.

    Args:
        model: Keras model with one output, nested or reloaded; of this package, of `keras.applications` or another one
            with convolutions.
        classes: Int, outputs of the new classifier.
        dropout_rate: Float in [0, 1), before the classifier; the model's by default.
        classifier_activation: `"softmax"`, `"sigmoid"`, or None for logits.
        replace: `"classifier"` to replace the last dense layer, or `"head"` to replace all that follows the pooling.

    Returns:
        A functional `keras.Model` with the dtype policy of `model`, not compiled.

    Raises:
        UserError: `classes` is no whole number from 1, Keras is set to channels first, the model has several outputs,
            or layers with weights would be lost, such as a segmentation decoder.

    Example:

    >>> model = keras_effnet.transfer.swap_head(keras_effnet.load_model("flowers.keras"), classes=3)
    """
    check_data_format()
    classes = checked_classes(classes)
    one_of("replace", replace, ("classifier", "head"))
    structure = structure_of(model)
    if len(structure.model.outputs) != 1:
        raise UserError(f"swap_head takes a model with one output; {model.name} has {len(structure.model.outputs)}.")
    policy = policy_of(model)
    if replace == "head":
        _, rate = _kept(structure, policy) if structure.classifier_of(structure.model.outputs[0])[0] else (None, 0.0)
        features = _pooled(structure, policy)
    else:
        features, rate = _kept(structure, policy)
    kept = keras.Model(structure.model.input, features, name=model.name)
    rate = rate if dropout_rate is None else dropout_rate
    name = _free_name("predictions", kept)
    outputs = classifier(features, classes, classifier_activation, rate, policy, name)
    swapped = keras.Model(structure.model.input, outputs, name=model.name)
    swapped.dtype_policy = policy  # `compile` reads it to decide on loss scaling
    return swapped


def learning_rate_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """Learning rate factor of each stage: `decay` to the power of its distance from the classifier.

    Args:
        model: Keras model with any head, as in `freeze`.
        decay: Float in (0, 1], ratio between one stage and the next; 1 gives all stages the same rate.

    Returns:
        A dict from `"stem"`, `"block1"`, ..., `"top"`, `"classifier"` to factors, increasing to 1; the stages of
        networks without such layer names are `"P1"`, `"P2"`, ... All that follows the backbone is the classifier.

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
    stages = [*dict.fromkeys(map(_stage, structure_of(model).parts)), CLASSIFIER]
    return {stage: decay ** (len(stages) - position) for position, stage in enumerate(stages, 1)}


def layerwise_optimizer(
    model: keras.Model, decay: float, optimizer: Callable[[float], keras.optimizers.Optimizer]
) -> keras.optimizers.MultiOptimizer:
    """Build a Keras `MultiOptimizer` with a lower learning rate for earlier stages.

    It consists of stock optimizers, so the model can be saved, resumed and reloaded in plain Keras. ULMFiT's gradual
    unfreezing is not included: lower rates also protect early layers from the large gradients of the first steps, and
    need no recompilation.

    Args:
        model: Keras model with any head, as in `freeze`, with layers frozen as wanted.
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
    for part in structure_of(model).parts:
        trained = [re.escape(layer.name) for layer in part.layers if layer.trainable_weights]
        if trained:
            names.setdefault(_stage(part), []).extend(trained)
    # Keras matches the patterns against paths of variables, such as "block5b_se_reduce/kernel", which begin with the
    # name of a nested model.
    optimizers = {f"(.*/)?({'|'.join(members)})/.*": optimizer(factors[stage]) for stage, members in names.items()}
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
    drops = [layer for layer in computing_layers(model) if isinstance(layer, keras.layers.Dropout)]
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


def _layers_in_use(model: keras.Model) -> Iterator[Any]:
    """Trainable layers, those of nested models too, unless their model is frozen."""
    for layer in model.layers:
        if layer.trainable:
            yield from _layers_in_use(layer) if is_nested(layer) else (layer,)


def _without_augmentation(model: keras.Model) -> keras.Model:
    """A model that shares all layers but those that augment, which training mode would switch on."""

    def call(layer, *args, **kwargs):
        return args[0] if type(layer).__name__.startswith(_AUGMENTING) else layer(*args, **kwargs)

    augments = any(type(layer).__name__.startswith(_AUGMENTING) for layer in computing_layers(model))
    return inlined(model, lambda layer: layer, call) if augments else model


class NormStatistics:
    """Recalibration of batch normalization statistics, compiled once for repeated use.

    Args:
        model: Keras model; frozen layers keep their statistics.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._norms = [layer for layer in _layers_in_use(model) if _is_batch_norm(layer)]
        self._probe = _TrainingMode(_without_augmentation(model))

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
    same weight, and dropout, stochastic depth and augmentation layers are off, as in inference. Frozen layers keep
    their statistics.

    Args:
        model: Keras model; its moving means and variances are replaced.
        batches: Batches of images, or of `(images, labels)`.
        max_batches: Int, maximum number of batches to use.

    Example:

    >>> keras_effnet.transfer.reestimate_batch_norm(model, train_batches)

    Source: "precise BatchNorm", Wu & Johnson, Rethinking "Batch" in BatchNorm (2021), section 3.
    """
    NormStatistics(model).measure(batches, max_batches)
