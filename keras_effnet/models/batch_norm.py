"""Fused batch normalization for training on the CPU.

Keras 3 computes a training step of `BatchNormalization` in a dozen elementwise operations, each of which reads the
whole feature map again. TensorFlow's fused kernel reads it twice and saves a fifth to a quarter of a step's CPU time.
Keras only; TensorFlow is imported only where it is the backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras

from keras_effnet.architecture.network_parts import computing_layers


def _fits(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> bool:
    """Whether the kernel computes the same: over all axes but the last of a 4-D input, in float32, on one device."""
    renormalized = getattr(layer, "renorm", False)  # new in Keras 3.15
    plain = layer.scale and layer.center and not renormalized and not layer.synchronized and mask is None
    return plain and len(inputs.shape) == 4 and layer.axis in (-1, 3) and layer.gamma.dtype == "float32"


def _call(layer: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    """`BatchNormalization.call`, with the fused kernel in training."""
    if not (training and layer.trainable and _fits(layer, inputs, mask)):
        return keras.layers.BatchNormalization.call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    images = tf.cast(inputs, tf.float32)  # as Keras does: sums of squares overflow float16
    scale, offset, mean, variance = (
        tf.cast(value, tf.float32) for value in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    fused = tf.raw_ops.FusedBatchNormV3(
        x=images, scale=scale, offset=offset, mean=[], variance=[], epsilon=layer.epsilon, is_training=True
    )
    # The kernel returns the unbiased variance; Keras averages the biased one.
    count = tf.cast(tf.size(images) // tf.shape(images)[-1], tf.float32)
    biased = fused.batch_variance * (1 - 1 / count)
    layer.moving_mean.assign(mean * layer.momentum + fused.batch_mean * (1 - layer.momentum))
    layer.moving_variance.assign(variance * layer.momentum + biased * (1 - layer.momentum))
    return tf.cast(fused.y, layer.compute_dtype)


def trains_on_cpu() -> bool:
    """Whether the backend is TensorFlow and it sees no GPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.get_visible_devices("GPU")


@contextmanager
def replaced_calls(
    model: keras.Model, replacement: Callable[[keras.layers.Layer], Callable[..., Any] | None]
) -> Iterator[bool]:
    """Replace the `call` of layers in what is traced or run inside a `with` block; earlier functions are not affected.

    Args:
        model: Keras model, nested ones included.
        replacement: Function from a layer to the function called instead of its `call`, or None to keep it. Layers
            whose `call` is replaced already, by an enclosing block, are not asked about.

    Yields:
        Bool, whether any layer was replaced.
    """
    calls = {}
    for layer in computing_layers(model):
        if "call" not in vars(layer) and (call := replacement(layer)):
            calls[id(layer)] = layer, call
    try:
        for layer, call in calls.values():
            layer.call = call
        yield bool(calls)
    finally:
        for layer, _ in calls.values():
            del layer.call


@contextmanager
def step_of_its_own(model: keras.Model, changed: bool) -> Iterator[None]:
    """Drop the compiled training step at both ends of a `with` block if layers compute otherwise inside it."""
    if changed:
        model.train_function = None
    try:
        yield
    finally:
        if changed:
            model.train_function = None


def _fused_call(layer: keras.layers.Layer) -> Callable[..., Any] | None:
    stock = type(layer) is keras.layers.BatchNormalization  # a subclass may compute something else
    return partial(_call, layer) if stock and trains_on_cpu() else None


@contextmanager
def fused_layers(model: keras.Model) -> Iterator[bool]:
    """Use the fused kernel in what is traced or run inside the block; functions compiled before it are not affected.

    Args:
        model: Keras model.

    Yields:
        Bool, whether any layer of the model uses the kernel now that did not before.
    """
    with replaced_calls(model, _fused_call) as changed:
        yield changed


@contextmanager
def fused_batch_norm(model: keras.Model) -> Iterator[None]:
    """Train a model with TensorFlow's fused batch normalization kernel inside a `with` block.

    `training.train` does so itself; use it around a `fit`, `train_on_batch` or training loop of your own. Results
    differ from Keras' by rounding alone: layers of other kinds, and cases that the kernel does not cover (synchronized,
    renormalized or masked ones, another axis), compute as Keras does. Nested models are included.

    Nothing of it outlives the block, whether it ends normally or by an exception. The layers keep their class, so
    inside the block, too, files, `copy.deepcopy`, `pickle` and `keras.models.clone_model` give plain Keras models. The
    compiled training step is dropped at both ends of the block: the first `fit` inside it and the first one behind it
    trace the step anew. A `tf.function` of your own that was traced inside the block keeps the kernel.

    Only for training on the CPU: the block changes nothing where TensorFlow sees a GPU, on which the kernel has not
    been measured, nor on the JAX and torch backends, whose compilers fuse these operations.

    Args:
        model: Keras model, compiled or not. Do not enter the block inside a callback of the model's own `fit`.

    Example:

    >>> with keras_effnet.models.fused_batch_norm(model):
    ...     model.fit(batches)
    """
    with fused_layers(model) as changed, step_of_its_own(model, changed):
        yield
