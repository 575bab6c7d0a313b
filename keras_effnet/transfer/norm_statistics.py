"""Batch normalization statistics, measured anew for the current weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import keras
import numpy as np

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.models.batch_norm import fused_layers
from keras_effnet.models.structure import inlined, is_nested

_AUGMENTING = ("Random", "Gaussian", "AugMix", "CutMix", "MixUp", "RandAugment")  # layers, by the start of their class


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
        self._norms = [layer for layer in _layers_in_use(model) if isinstance(layer, keras.layers.BatchNormalization)]
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
