"""Batch normalization in one kernel of TensorFlow, where Keras takes a dozen: a fifth or more of a step on the CPU.

Keras 3 measures, normalizes and goes back by elementwise operations, each of which reads the whole feature map once
more. TensorFlow's fused kernel reads it twice. Layers stay Keras' own, in class, configuration and file: only how one
instance computes in training is replaced, and what opens the file in plain Keras computes as Keras does. On other
backends nothing is changed, JAX and torch fuse by themselves. Imports nothing of the package.
"""

from __future__ import annotations

from functools import partial

import keras


def _fits(layer: keras.layers.BatchNormalization, inputs, mask) -> bool:
    """Whether the fused kernel computes the same: over all but the last axis of images, in float32, by itself."""
    plain = layer.scale and layer.center and not layer.renorm and not layer.synchronized and mask is None
    return plain and len(inputs.shape) == 4 and layer.axis in (-1, 3) and layer.gamma.dtype == "float32"


def _call(layer: keras.layers.BatchNormalization, inputs, training=None, mask=None):
    """`keras.layers.BatchNormalization.call`, fused in training."""
    if not (training and layer.trainable and _fits(layer, inputs, mask)):
        return keras.layers.BatchNormalization.call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    images = tf.cast(inputs, tf.float32)  # as Keras does: float16 has no room for sums of squares
    scale, offset, mean, variance = (
        tf.cast(value, tf.float32) for value in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    fused = tf.raw_ops.FusedBatchNormV3(
        x=images, scale=scale, offset=offset, mean=[], variance=[], epsilon=layer.epsilon, is_training=True
    )
    # The kernel's variance is the unbiased one; Keras averages the biased one.
    count = tf.cast(tf.size(images) // tf.shape(images)[-1], tf.float32)
    biased = fused.batch_variance * (1 - 1 / count)
    layer.moving_mean.assign(mean * layer.momentum + fused.batch_mean * (1 - layer.momentum))
    layer.moving_variance.assign(variance * layer.momentum + biased * (1 - layer.momentum))
    return tf.cast(fused.y, layer.compute_dtype)


def fuse_batch_norm(model: keras.Model) -> keras.Model:
    """Lets a network's batch normalization train by TensorFlow's fused kernel; nested models included.

    Results differ by rounding alone. Networks of this package come so; others, and those that
    `keras.models.load_model` opens, can be made so before they are first trained.

    Args:
        model: Keras model.

    Returns:
        The same model.

    Example:

    >>> model = keras_effnet.models.fused_batch_norm.fuse_batch_norm(keras.applications.EfficientNetB0(weights=None))
    """
    if keras.backend.backend() == "tensorflow":
        for layer in model._flatten_layers():
            if type(layer) is keras.layers.BatchNormalization:
                layer.call = partial(_call, layer)
    return model
