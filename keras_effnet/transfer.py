"""What a trained network needs before it is used elsewhere. Keras alone, no `tf.`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import keras


def reestimate_batch_norm(model: keras.Model, batches: Iterable, max_batches: int = 100) -> None:
    """Measures the batch normalization statistics of a network anew, for the weights that it has now.

    The moving averages of a training trail weights that keep changing, and forget within a few batches a channel that
    fires rarely. Here every batch counts alike, and dropout and stochastic depth rest, as they will in use.

    Args:
        model: Keras model; its moving means and variances are replaced.
        batches: Batches of pictures, or of `(pictures, labels)`.
        max_batches: Int, how many are used at most.

    Example:

    >>> keras_effnet.transfer.reestimate_batch_norm(model, train_batches)

    Source: "precise BN", Wu & Johnson, Rethinking "Batch" in BatchNorm (2021), section 3.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    momenta, rates = [layer.momentum for layer in norms], [layer.rate for layer in drops]
    try:
        for layer in drops:
            layer.rate = 0.0
        for seen, batch in enumerate(islice(batches, max_batches)):
            for layer in norms:
                layer.momentum = seen / (seen + 1)  # a plain mean: the k-th batch enters with weight 1/k
            model(batch[0] if isinstance(batch, (tuple, list)) else batch, training=True)
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for layer, rate in zip(drops, rates, strict=True):
            layer.rate = rate
