"""Faster gradients of swish and of wide depthwise filters for training on the CPU.

TensorFlow computes the gradient of swish in six elementwise operations, each of which writes a feature map; compiled
into one, they take 0.4 of the time. oneDNN has no kernel of its own for the gradient of depthwise filters wider than
three pixels, and its general one takes 1.1 to 2.5 times as long as TensorFlow's. Together they save a sixth of a step
of B0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import keras
import tensorflow as tf

from keras_effnet.models.batch_norm import replaced_calls, step_of_its_own, trains_on_cpu

_WIDEST = 3  # pixels; up to this width oneDNN's own kernel of depthwise filters is the fastest


@tf.function(jit_compile=True, autograph=False)
def _swish_gradient(features: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    gate = tf.sigmoid(features)
    return upstream * (gate * (1 + features * (1 - gate)))


@tf.custom_gradient
def swish(features: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Swish whose gradient is one compiled operation; only the input is kept for it.

    Args:
        features: Float32 tensor.
    """
    return features * tf.sigmoid(features), partial(_swish_gradient, features)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels that `padding="same"` adds before and after `size` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def depthwise_conv(images: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """Depthwise convolution whose filter gradient comes from TensorFlow's own kernel.

    Args:
        images: Float32 tensor of shape `(batch, height, width, channels)`, height and width known.
        kernel: Float32 tensor of shape `(height, width, channels, 1)`.
        stride: Int, along both axes.
        padding: `"same"` or `"valid"`.
    """
    height, width = images.shape[1:3]
    strides, mode = (1, stride, stride, 1), padding.upper()
    edges = [(0, 0), (0, 0)]
    if padding == "same":
        edges = [_same_padding(*each, stride) for each in zip((height, width), kernel.shape[:2], strict=True)]

    @tf.custom_gradient
    def convolved(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
        def gradients(upstream: tf.Tensor) -> list[tf.Tensor]:
            by_image = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(images), filter=kernel, out_backprop=upstream, strides=strides, padding=mode
            )
            # Explicit padding is what keeps oneDNN from taking the operation over.
            by_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=images,
                filter_sizes=kernel.shape,
                out_backprop=upstream,
                strides=strides,
                padding="EXPLICIT",
                explicit_paddings=[0, 0, *edges[0], *edges[1], 0, 0],
            )
            return [by_image, by_kernel]

        return tf.nn.depthwise_conv2d(images, kernel, strides, mode), gradients

    return convolved(images, kernel)


def _is_map(inputs: Any) -> bool:
    """Whether inputs are float32 feature maps of a known size, not the single pixel of squeeze-and-excite."""
    shape = inputs.shape
    return inputs.dtype == "float32" and len(shape) == 4 and None not in shape[1:] and shape[1] * shape[2] > 1


def _swish_call(layer: Any, inputs: Any, *args: Any, **options: Any) -> Any:
    return swish(inputs) if _is_map(inputs) else type(layer).call(layer, inputs, *args, **options)


def _depthwise_call(layer: Any, inputs: Any, *args: Any, **options: Any) -> Any:
    if not _is_map(inputs):
        return type(layer).call(layer, inputs, *args, **options)
    kernel = tf.convert_to_tensor(layer.kernel)
    return depthwise_conv(inputs, kernel, layer.strides[0], layer.padding)


def _faster_call(layer: Any) -> Callable[..., Any] | None:
    """Replacement of the `call` of a layer that has a faster gradient."""
    if type(layer) is keras.layers.Activation and layer.activation is keras.activations.silu:
        return partial(_swish_call, layer)
    if type(layer) is not keras.layers.DepthwiseConv2D or layer.kernel_size[1] <= _WIDEST:
        return None
    plain = not layer.use_bias and layer.activation is keras.activations.linear and layer.depth_multiplier == 1
    usual = layer.data_format == "channels_last" and set(layer.dilation_rate) == {1} and len(set(layer.strides)) == 1
    return partial(_depthwise_call, layer) if plain and usual else None


@cache
def _compiles() -> bool:
    """Whether this TensorFlow compiles for the CPU."""
    try:
        _swish_gradient(tf.zeros(1), tf.zeros(1))
    except (tf.errors.OpError, ValueError):
        return False
    return True


@contextmanager
def fused_gradients(model: keras.Model) -> Iterator[None]:
    """Train a model with faster gradients of swish and of depthwise filters wider than three pixels in a `with` block.

    `training.train` does so itself. Results differ from Keras' by rounding alone. As with
    `models.fused_batch_norm`, nothing outlives the block, files that are saved inside it are plain Keras, and the
    compiled training step is dropped at both ends. Only stock layers in float32 are covered. Nothing changes on GPUs,
    under a distribution strategy, in a model that is compiled with `jit_compile=True`, or on other backends.

    Args:
        model: Keras model, compiled or not.

    Example:

    >>> with keras_effnet.training.fused_gradients(model):
    ...     model.fit(batches)
    """
    covered = trains_on_cpu() and not tf.distribute.has_strategy() and not getattr(model, "jit_compile", False)
    replacement = _faster_call if covered and _compiles() else lambda layer: None
    with replaced_calls(model, replacement) as changed, step_of_its_own(model, changed):
        yield
