"""Blocks as functions from tensor to tensor, built from the specs that `architecture.expand` computed. Keras only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import layers

from keras_effnet.architecture.block_specs import (
    ConvSpec,
    FusedMBConvSpec,
    MBConvSpec,
    NormSpec,
    PreActBlockSpec,
    ResNetBlockSpec,
)
from keras_effnet.architecture.specs import ArchitectureSpec

# He initialization by fan-out, as in the training of the published networks.
_CONV_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
# By fan-in: at 1000 classes the spread is close to the published one by fan-out (0.016 and 0.018), and a classifier of
# few classes does not start ten times as noisy. Fine-tuned on ten classes, the first epoch's loss was above 4.
_DENSE_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0 / 3.0, "mode": "fan_in", "distribution": "uniform"},
}


@dataclass(frozen=True)
class LayerOptions:
    """Settings that all layers of a network share.

    Args:
        spec: `ArchitectureSpec`, for activation, padding and batch normalization.
        dtype: Dtype policy of every layer, or None for the global one.
    """

    spec: ArchitectureSpec
    dtype: Any = None

    def batch_norm(self, x: Any, name: str) -> Any:
        """Batch normalization with the spec's momentum and epsilon."""
        momentum, epsilon = self.spec.bn_momentum, self.spec.bn_epsilon
        return layers.BatchNormalization(momentum=momentum, epsilon=epsilon, dtype=self.dtype, name=name)(x)

    def activation(self, x: Any, name: str, function: str | None = None) -> Any:
        """Activation as a separate layer, by default the spec's."""
        # Never Conv2D(activation=...): quantization-aware training handles layers, not arguments.
        return layers.Activation(function or self.spec.activation, dtype=self.dtype, name=name)(x)


def convolution(x: Any, conv: ConvSpec, options: LayerOptions) -> Any:
    """Convolution without normalization and activation, with the spec's padding."""
    padding = "same"
    if options.spec.padding == "symmetric" and conv.stride > 1 and conv.kernel > 1:
        # torch pads both sides equally; TensorFlow's "same" pads strided windows more on the far side.
        x = layers.ZeroPadding2D(conv.kernel // 2, dtype=options.dtype, name=f"{conv.name}_pad")(x)
        padding = "valid"
    shared = {
        "kernel_size": conv.kernel,
        "strides": conv.stride,
        "padding": padding,
        "use_bias": conv.bias,
        "dtype": options.dtype,
        "name": conv.name,
    }
    if conv.depthwise:
        return layers.DepthwiseConv2D(depthwise_initializer=_CONV_INITIALIZER, **shared)(x)
    return layers.Conv2D(conv.out_channels, kernel_initializer=_CONV_INITIALIZER, **shared)(x)


def conv_bn_act(x: Any, part: ConvSpec | NormSpec, options: LayerOptions) -> Any:
    """Convolution, batch normalization and activation, each only if the spec has it."""
    if isinstance(part, ConvSpec):
        x = convolution(x, part, options)
    if part.norm:
        x = options.batch_norm(x, f"{part.prefix}_bn")
    if part.act:
        x = options.activation(x, f"{part.prefix}_activation")
    return x


def squeeze_excite(x: Any, reduce: ConvSpec, expand: ConvSpec, options: LayerOptions) -> Any:
    """Squeeze-and-excite: channels weighted by a function of their means over the image (Hu et al., CVPR 2018)."""
    gate = layers.GlobalAveragePooling2D(keepdims=True, dtype=options.dtype, name=f"{reduce.prefix}_squeeze")(x)
    gate = convolution(gate, reduce, options)
    gate = options.activation(gate, f"{reduce.name}_activation")
    gate = convolution(gate, expand, options)
    gate = options.activation(gate, f"{expand.name}_activation", "sigmoid")
    return layers.Multiply(dtype=options.dtype, name=f"{reduce.prefix}_excite")([x, gate])


def residual(x: Any, shortcut: Any, name: str, drop_rate: float, options: LayerOptions) -> Any:
    """Add the shortcut; in training the branch is dropped per image with `drop_rate` (stochastic depth)."""
    if drop_rate > 0:
        drop = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), dtype=options.dtype, name=f"{name}_drop")
        x = drop(x)
    return layers.Add(dtype=options.dtype, name=f"{name}_add")([x, shortcut])


def mbconv(x: Any, block: MBConvSpec, options: LayerOptions) -> Any:
    """Inverted bottleneck (Sandler et al., CVPR 2018), with squeeze-and-excite if the spec has it."""
    shortcut = x
    if block.expand:
        x = conv_bn_act(x, block.expand, options)
    x = conv_bn_act(x, block.depthwise, options)
    if block.se_reduce and block.se_expand:
        x = squeeze_excite(x, block.se_reduce, block.se_expand, options)
    x = conv_bn_act(x, block.project, options)
    return residual(x, shortcut, block.name, block.drop_rate, options) if block.residual else x


def fused_mbconv(x: Any, block: FusedMBConvSpec, options: LayerOptions) -> Any:
    """Fused-MBConv (Tan & Le, EfficientNetV2, ICML 2021): the spatial convolution expands the channels too."""
    shortcut = x
    for conv in block.weighted:
        x = conv_bn_act(x, conv, options)
    return residual(x, shortcut, block.name, block.drop_rate, options) if block.residual else x


def _branch(x: Any, block: ResNetBlockSpec, shortcut: Any, options: LayerOptions) -> Any:
    for conv in block.branch:
        x = conv_bn_act(x, conv, options)
    return residual(x, shortcut, block.name, block.drop_rate, options)


def resnet_block(x: Any, block: ResNetBlockSpec, options: LayerOptions) -> Any:
    """ResNet's basic or bottleneck block (He et al., CVPR 2016), with the activation after the sum."""
    shortcut = conv_bn_act(x, block.shortcut, options) if block.shortcut else x
    return options.activation(_branch(x, block, shortcut, options), f"{block.name}_out")


def preact_block(x: Any, block: PreActBlockSpec, options: LayerOptions) -> Any:
    """Pre-activation block (He et al., ECCV 2016; Zagoruyko & Komodakis, BMVC 2016), with nothing after the sum."""
    activated = conv_bn_act(x, block.pre, options)
    shortcut = conv_bn_act(activated, block.shortcut, options) if block.shortcut else x
    return _branch(activated, block, shortcut, options)


BLOCKS: dict[type, Callable[[Any, Any, LayerOptions], Any]] = {
    MBConvSpec: mbconv,
    FusedMBConvSpec: fused_mbconv,
    ResNetBlockSpec: resnet_block,
    PreActBlockSpec: preact_block,
}


def classifier(
    x: Any, classes: int, activation: str | None, dropout_rate: float, dtype: Any = None, name: str = "predictions"
) -> Any:
    """Dropout and the dense layer, which is float32 under any policy because softmax overflows in float16."""
    if dropout_rate > 0:
        x = layers.Dropout(dropout_rate, dtype=dtype, name=name.replace("predictions", "top_dropout"))(x)
    return layers.Dense(
        classes, activation=activation, kernel_initializer=_DENSE_INITIALIZER, dtype="float32", name=name
    )(x)
