"""Folding of batch normalization into the preceding convolutions, as the converter does, in Keras.

Weights that are trained for int8 or clustered must equal those in the file, which are folded. Keras and numpy.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np

from keras_effnet.export.conversion.structure import copied
from keras_effnet.system.private_api import graph_steps

FOLDING = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def input_layers(model: keras.Model) -> dict[str, list[Any]]:
    """Name of each layer of a functional model -> the layers (or `keras.ops` operations) that feed it."""
    producers = {id(tensor): each for each in model.operations for tensor in keras.tree.flatten(each.output)}
    return {
        each.name: []
        if isinstance(each, keras.layers.InputLayer)
        else [producers[id(tensor)] for tensor in keras.tree.flatten(each.input) if id(tensor) in producers]
        for each in model.operations
    }


def foldable(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Name of a convolution -> the batch normalization of its channels that is the only layer to see its output.

    Both are called once, and stock layers: a layer that is called again computes something else there.
    """
    steps = graph_steps(model)
    makers = {id(output): operation for operation, _, output in steps}
    calls = Counter(id(operation) for operation, _, _ in steps)
    readers = Counter(id(tensor) for _, inputs, _ in steps for tensor in inputs)
    readers.update(map(id, model.outputs))
    found = {}
    for norm, (given, *_), _ in steps:
        before: Any = makers.get(id(given))
        stock = type(norm) is keras.layers.BatchNormalization and type(before) in FOLDING
        if stock and readers[id(given)] == calls[id(norm)] == calls[id(before)] == 1 and _takes_up(before, norm):
            found[before.name] = norm
    return found


def _takes_up(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> bool:
    """Whether a convolution is linear and its channels are what is normalized."""
    channels = 3 if convolution.data_format == "channels_last" else 1
    return convolution.activation is keras.activations.linear and norm.axis % 4 == channels


def folded_weights(convolution, norm) -> list[np.ndarray]:
    """Kernel and bias, in float64, of a convolution that computes what it and the normalization behind it do."""
    kernel, *bias = (np.asarray(weight, "float64") for weight in convolution.get_weights())
    mean, variance = (keras.ops.convert_to_numpy(v).astype("float64") for v in (norm.moving_mean, norm.moving_variance))
    factor = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * keras.ops.convert_to_numpy(norm.gamma)
    offset = keras.ops.convert_to_numpy(norm.beta) if norm.center else 0.0
    # A depthwise kernel's channels are its last two axes, in that order.
    scaled = kernel * factor.reshape(kernel.shape[2:] if kernel.shape[3] != len(factor) else (-1,))
    return [scaled, (bias[0] - mean if bias else -mean) * factor + offset]


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Fold each batch normalization that follows a convolution into it; the other layers keep their names.

    Args:
        model: Functional Keras model, in float32.

    Returns:
        A new functional model of stock layers, whose convolutions have biases.

    Example:

    >>> folded = fold_batch_norms(keras_effnet.EfficientNetLite0())
    """
    folds = foldable(model)
    folded_away = {norm.name for norm in folds.values()}

    def rebuild(layer):
        return copied(layer, use_bias=True) if layer.name in folds else copied(layer)

    def connect(layer, *args, **kwargs):
        return args[0] if layer.name in folded_away else layer(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=rebuild, call_function=connect)
    for layer in filter(lambda layer: layer.weights, copy.layers):
        before, norm = model.get_layer(layer.name), folds.get(layer.name)
        layer.set_weights(folded_weights(before, norm) if norm else before.get_weights())
    return copy
