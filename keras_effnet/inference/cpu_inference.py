"""Fast inference of Keras networks on the CPU: batch normalization is folded into convolutions. TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.export.conversion.folding import foldable, folded_weights
from keras_effnet.models.batch_norm import trains_on_cpu


def frozen(model: keras.Model) -> Callable[[np.ndarray], Any]:
    """Return a function that computes what `model.predict_on_batch` does, on a CPU in less time.

    Keras normalizes a feature map in two operations of their own. Here the variance goes into the kernel of the
    convolution before and the rest becomes its bias, which TensorFlow fuses with the convolution and its activation.
    Outputs differ by rounding. Layers in half precision, networks that call a layer several times, GPUs and other
    backends compute as Keras does.

    Args:
        model: Keras model with one input. Its weights are read now; later changes have no effect.

    Returns:
        A function from images of shape `(N, height, width, channels)` to arrays, in the structure of the outputs.

    Example:

    >>> frozen(keras_effnet.EfficientNetB0())(images).argmax(axis=1)
    """
    if not trains_on_cpu() or not _calls_each_layer_once(model):
        return model.predict_on_batch
    folded = _folded_values(model)
    # Vectors become constants of the graph, so that multiplying by one disappears; kernels stay out of it: they are
    # large, and a graph is copied several times.
    kernels = {key: tf.constant(value, tf.float32) for key, value in folded.items() if value.ndim > 1}

    def value(variable: keras.Variable) -> tf.Tensor:
        if (key := id(variable)) in kernels:
            return kernels[key]
        return tf.constant(folded[key], tf.float32) if key in folded else variable.value

    @cache
    def compiled(shape: tuple[int, ...]) -> Callable[[tf.Tensor], Any]:
        def outputs(images: tf.Tensor) -> Any:
            trained, others = (
                [*map(value, each)] for each in (model.trainable_variables, model.non_trainable_variables)
            )
            return model.stateless_call(trained, others, images, training=False)[0]

        signature = tf.TensorSpec((None, *shape), model.inputs[0].dtype)
        return tf.function(outputs, autograph=False).get_concrete_function(signature)

    def run(images: np.ndarray) -> Any:
        found = compiled(images.shape[1:])(tf.cast(images, model.inputs[0].dtype))
        return keras.tree.map_structure(np.asarray, found)

    return run


def _calls_each_layer_once(model: keras.Model) -> bool:
    """Whether a model is functional and calls each of its layers once."""
    functional = hasattr(model, "operations")
    return functional and all(len(layer["inbound_nodes"]) <= 1 for layer in model.get_config()["layers"])


def _fits(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> bool:
    """Whether both compute in float32 on the last axis, and the normalization can add a bias."""
    last = convolution.data_format == "channels_last"
    return last and norm.center and convolution.compute_dtype == norm.compute_dtype == "float32"


def _folded_values(model: keras.Model) -> dict[int, np.ndarray]:
    """`id` of a variable -> its value when each foldable batch normalization only adds a bias."""
    values: dict[int, np.ndarray] = {}
    for name, norm in foldable(model).items():
        convolution = model.get_layer(name)
        if not _fits(convolution, norm):
            continue
        kernel, offset = folded_weights(convolution, norm)
        values |= {id(convolution.kernel): kernel, id(norm.beta): offset}
        neutral = (
            (convolution.bias, 0),
            (norm.moving_mean, 0),
            (norm.moving_variance, 1 - norm.epsilon),
            (norm.gamma, 1),
        )
        values |= {id(each): np.full(each.shape, number) for each, number in neutral if each is not None}
    return values
