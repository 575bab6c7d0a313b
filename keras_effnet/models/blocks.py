"""Blocks as functions tensor -> tensor, each walking the spec that `architecture.expand` computed.

The layer classes come in with `LayerOptions`, so the same code builds a Keras 3 network or its tf_keras twin. Keras
alone, no `tf.`: networks train on every backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_effnet.architecture.block_specs import ConvSpec, MBConvSpec, NormSpec, PreActBlockSpec, ResNetBlockSpec
from keras_effnet.architecture.specs import ArchitectureSpec

# He initialisation by output fan: what the published networks were trained from.
_CONV_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
# By input fan: at 1000 classes that is close to the published spread, by output fan (0.016 and 0.018), and a classifier
# of few classes does not start ten times as noisy. Fine-tuned on ten, the first epoch's loss was above 4.
_DENSE_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0 / 3.0, "mode": "fan_in", "distribution": "uniform"},
}


@dataclass(frozen=True)
class LayerOptions:
    """What all layers of one network share.

    Args:
        layers: The `layers` module to build with, `keras.layers` as a rule.
        spec: `ArchitectureSpec`, for activation, padding and batch normalization.
        dtype: Dtype policy of every layer, or None for the global one.
    """

    layers: Any
    spec: ArchitectureSpec
    dtype: Any = None

    def batch_norm(self, x, name: str):
        """Applies batch normalization."""
        return self.layers.BatchNormalization(
            momentum=self.spec.bn_momentum, epsilon=self.spec.bn_epsilon, dtype=self.dtype, name=name
        )(x)

    def activation(self, x, name: str, function: str | None = None):
        """Applies an activation function as a layer of its own."""
        # A layer of its own, never Conv2D(activation=...): quantization-aware training sees layers, not arguments.
        return self.layers.Activation(function or self.spec.activation, dtype=self.dtype, name=name)(x)


def convolution(x, conv: ConvSpec, options: LayerOptions):
    """The bare convolution, padded as the spec says."""
    padding = "same"
    if options.spec.padding == "symmetric" and conv.stride > 1 and conv.kernel > 1:
        # torch pads both sides alike; TensorFlow's "same" pads a strided window on the far side first.
        x = options.layers.ZeroPadding2D(conv.kernel // 2, dtype=options.dtype, name=f"{conv.name}_pad")(x)
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
        return options.layers.DepthwiseConv2D(depthwise_initializer=_CONV_INITIALIZER, **shared)(x)
    return options.layers.Conv2D(conv.out_channels, kernel_initializer=_CONV_INITIALIZER, **shared)(x)


def conv_bn_act(x, part: ConvSpec | NormSpec, options: LayerOptions):
    """Convolution, batch normalization and activation, each where the spec has it."""
    if isinstance(part, ConvSpec):
        x = convolution(x, part, options)
    if part.norm:
        x = options.batch_norm(x, f"{part.prefix}_bn")
    if part.act:
        x = options.activation(x, f"{part.prefix}_activation")
    return x


def squeeze_excite(x, reduce: ConvSpec, expand: ConvSpec, options: LayerOptions):
    """Weights each channel by what the whole image says of it (Hu et al., CVPR 2018)."""
    gate = options.layers.GlobalAveragePooling2D(keepdims=True, dtype=options.dtype, name=f"{reduce.prefix}_squeeze")(x)
    gate = convolution(gate, reduce, options)
    gate = options.activation(gate, f"{reduce.name}_activation")
    gate = convolution(gate, expand, options)
    gate = options.activation(gate, f"{expand.name}_activation", "sigmoid")
    return options.layers.Multiply(dtype=options.dtype, name=f"{reduce.prefix}_excite")([x, gate])


def residual(x, shortcut, name: str, drop_rate: float, options: LayerOptions):
    """Adds the shortcut; in training the branch is dropped for a whole image at a time (stochastic depth)."""
    if drop_rate > 0:
        drop = options.layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), dtype=options.dtype, name=f"{name}_drop")
        x = drop(x)
    return options.layers.Add(dtype=options.dtype, name=f"{name}_add")([x, shortcut])


def mbconv(x, block: MBConvSpec, options: LayerOptions):
    """Inverted bottleneck (Sandler et al., CVPR 2018), with squeeze-and-excite where the spec has it."""
    shortcut = x
    if block.expand:
        x = conv_bn_act(x, block.expand, options)
    x = conv_bn_act(x, block.depthwise, options)
    if block.se_reduce:
        x = squeeze_excite(x, block.se_reduce, block.se_expand, options)
    x = conv_bn_act(x, block.project, options)
    return residual(x, shortcut, block.name, block.drop_rate, options) if block.residual else x


def _branch(x, block: ResNetBlockSpec, shortcut, options: LayerOptions):
    for conv in block.branch:
        x = conv_bn_act(x, conv, options)
    return residual(x, shortcut, block.name, block.drop_rate, options)


def resnet_block(x, block: ResNetBlockSpec, options: LayerOptions):
    """ResNet's basic block and its bottleneck (He et al., CVPR 2016): the activation comes after the sum."""
    shortcut = conv_bn_act(x, block.shortcut, options) if block.shortcut else x
    return options.activation(_branch(x, block, shortcut, options), f"{block.name}_out")


def preact_block(x, block: PreActBlockSpec, options: LayerOptions):
    """Pre-activation block (He et al., ECCV 2016; Zagoruyko & Komodakis, BMVC 2016): nothing comes after the sum."""
    activated = conv_bn_act(x, block.pre, options)
    shortcut = conv_bn_act(activated, block.shortcut, options) if block.shortcut else x
    return _branch(activated, block, shortcut, options)


BLOCKS = {MBConvSpec: mbconv, ResNetBlockSpec: resnet_block, PreActBlockSpec: preact_block}


def classifier(x, classes: int, activation: str | None, dropout_rate: float, options: LayerOptions):
    """Dropout and the dense layer. Logits and activation are float32 under any policy: softmax overflows in float16."""
    if dropout_rate > 0:
        x = options.layers.Dropout(dropout_rate, dtype=options.dtype, name="top_dropout")(x)
    return options.layers.Dense(
        classes, activation=activation, kernel_initializer=_DENSE_INITIALIZER, dtype="float32", name="predictions"
    )(x)
