"""BiFPN and detection heads as functions from feature maps to tensors. Keras only.

Sizes are read from the tensors, so images need not be square, but their sides must be fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from keras import layers

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.architecture.pyramid import DetectorNetwork, ExtraLevel, FusionNode, HeadSpec, NodeInput
from keras_effnet.models.blocks import LayerOptions, conv_bn_act, convolution

Maps = dict[Any, Any]  # feature maps by level or by name

_EPSILON = 1e-4  # of the fast fusion
_TINY = 1e-6  # see `_reciprocal`
_PRIOR = 0.01  # score of every class at the start, Lin et al., Focal Loss (ICCV 2017)


def detector_options(spec: DetectorSpec, dtype: Any) -> LayerOptions:
    """Settings of the layers of BiFPN and heads: activation and padding of the backbone, own batch normalization."""
    settings = replace(spec.backbone, bn_momentum=spec.bn_momentum, bn_epsilon=spec.bn_epsilon)
    return LayerOptions(settings, dtype)


def _halved(x: Any, name: str, options: LayerOptions) -> Any:
    return layers.MaxPooling2D(3, 2, padding="same", dtype=options.dtype, name=f"{name}_pool")(x)


def _doubled(x: Any, like: Any, name: str, options: LayerOptions) -> Any:
    """Nearest neighbour upsampling by 2, cropped by a row and a column where the finer map has an odd side."""
    # Resizing straight to an odd side picks other pixels; UpSampling2D becomes two operators in a .tflite file.
    height, width = 2 * x.shape[1], 2 * x.shape[2]
    up = layers.Resizing(height, width, interpolation="nearest", dtype=options.dtype, name=f"{name}_up")
    # Its own default is training=True, which Keras hands on to all layers that are called after it.
    x = up(x, training=False)
    excess = (height - like.shape[1], width - like.shape[2])
    if any(excess):
        crop = layers.Cropping2D(((0, excess[0]), (0, excess[1])), dtype=options.dtype, name=f"{name}_crop")
        x = crop(x)
    return x


def extra_level(x: Any, extra: ExtraLevel, options: LayerOptions) -> Any:
    """A level beyond the backbone's, from the level before it."""
    if extra.project:
        x = conv_bn_act(x, extra.project, options)
    return _halved(x, f"p{extra.level}", options)


def _brought(source: NodeInput, node: FusionNode, maps: Maps, options: LayerOptions) -> Any:
    """Input of a node at the node's width and level."""
    x, name = maps[source.source], f"{node.name}_from_p{source.level}"
    if source.project:
        x = conv_bn_act(x, source.project, options)
    if source.level > node.level:
        return _doubled(x, maps[f"p{node.level}"], name, options)
    return _halved(x, name, options) if source.level < node.level else x


@dataclass(frozen=True)
class FastFusion:
    """Sum of feature maps with learned weights relu(w) / (sum of relu(w) + 1e-4), of stock layers alone.

    A weight is the kernel of a `Dense` layer on a constant 1, computed in float32 under any dtype policy. Converters
    fold all of it to constants.

    Args:
        one: Constant tensor of ones, of shape `(N, 1, 1, 1)`.
        options: `LayerOptions`.
    """

    one: Any
    options: LayerOptions

    def __call__(self, maps: list[Any], name: str) -> Any:
        """Fuse maps of the same shape."""
        weights = [self._weight(f"{name}_weight{number}") for number in range(1, len(maps) + 1)]
        total = layers.Add(dtype="float32", name=f"{name}_total")(weights)
        reciprocal = self._reciprocal(total, name)
        shares = [
            layers.Multiply(dtype="float32", name=f"{name}_share{number}")([weight, reciprocal])
            for number, weight in enumerate(weights, start=1)
        ]
        weighted = [
            layers.Multiply(dtype=self.options.dtype, name=f"{name}_weighted{number}")([x, share])
            for number, (x, share) in enumerate(zip(maps, shares, strict=True), start=1)
        ]
        return layers.Add(dtype=self.options.dtype, name=f"{name}_add")(weighted)

    def _weight(self, name: str) -> Any:
        return layers.Dense(
            1, activation="relu", use_bias=False, kernel_initializer="ones", dtype="float32", name=name
        )(self.one)

    def _reciprocal(self, total: Any, name: str) -> Any:
        """1 / (total + 1e-4). Keras has no layer that divides, but one that scales vectors to length 1.

        The second component of (s, t) / |(s, t)| is t / s * (1 + t^2 / s^2)^-0.5. With t = 1e-6 and s >= 1e-4 it
        differs from t / s by 5e-5 at most, and by less than float32 resolves from s = 0.01 on.
        """
        total = layers.Rescaling(1.0, _EPSILON, dtype="float32", name=f"{name}_denominator")(total)
        tiny = layers.Rescaling(_TINY, dtype="float32", name=f"{name}_tiny")(self.one)
        pair = layers.Concatenate(axis=1, dtype="float32", name=f"{name}_pair")([total, tiny])
        pair = layers.UnitNormalization(axis=1, dtype="float32", name=f"{name}_unit")(pair)
        second = layers.Cropping2D(((1, 0), (0, 0)), dtype="float32", name=f"{name}_second")(pair)
        return layers.Rescaling(1 / _TINY, dtype="float32", name=f"{name}_reciprocal")(second)


def constant_one(image: Any) -> Any:
    """Ones of shape `(N, 1, 1, 1)` for a batch of N images, of stock layers."""
    x = layers.GlobalAveragePooling2D(dtype="float32", name="one_mean")(image)
    x = layers.Reshape((1, image.shape[-1], 1), dtype="float32", name="one_shape")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name="one_pixel")(x)
    return layers.Rescaling(0.0, 1.0, dtype="float32", name="one")(x)


@dataclass(frozen=True)
class PlainSum:
    """Sum of feature maps."""

    options: LayerOptions

    def __call__(self, maps: list[Any], name: str) -> Any:
        """Fuse maps of the same shape."""
        return layers.Add(dtype=self.options.dtype, name=f"{name}_add")(maps)


def fused_maps(
    maps: Maps, network: DetectorNetwork, fuse: Callable[[list[Any], str], Any], options: LayerOptions
) -> dict[int, Any]:
    """Feature maps after all cells of a BiFPN.

    Args:
        maps: Level -> feature map, for all levels of the pyramid.
        network: Expanded detector.
        fuse: `FastFusion` or `PlainSum`.
        options: `LayerOptions`.

    Returns:
        Level -> feature map of the BiFPN's width.
    """
    for cell in network.cells:
        received = {f"p{level}": x for level, x in maps.items()}
        for node in cell:
            inputs = [_brought(source, node, received, options) for source in node.inputs]
            x = fuse(inputs, node.name)
            x = options.activation(x, f"{node.name}_activation")
            x = convolution(x, node.depthwise, options)
            received[node.name] = conv_bn_act(x, node.pointwise, options)
            maps = maps | {node.level: received[node.name]}
    return maps


def _shared_layers(head: HeadSpec, options: LayerOptions) -> list[tuple[layers.Layer, layers.Layer]]:
    """Depthwise and pointwise layer of every step, which all levels share."""
    made = []
    for depthwise, pointwise in next(iter(head.convolutions.values())):
        common = {"padding": "same", "dtype": options.dtype}
        last = depthwise.prefix.endswith("_predict")
        made.append(
            (
                layers.DepthwiseConv2D(
                    3, use_bias=False, depthwise_initializer=_kernels(last), name=depthwise.name, **common
                ),
                layers.Conv2D(
                    pointwise.out_channels,
                    1,
                    kernel_initializer=_kernels(last),
                    bias_initializer=_prior() if last and head.name == "class" else "zeros",
                    name=pointwise.name,
                    **common,
                ),
            )
        )
    return made


def _prior() -> dict[str, Any]:
    return {"class_name": "Constant", "config": {"value": -math.log((1 - _PRIOR) / _PRIOR)}}


def _kernels(prediction: bool) -> dict[str, Any]:
    """Initializer of kernels; predictions start almost alike for all images."""
    if prediction:
        return {"class_name": "RandomNormal", "config": {"mean": 0.0, "stddev": 0.01}}
    config = {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"}
    return {"class_name": "VarianceScaling", "config": config}


def head_output(maps: dict[int, Any], head: HeadSpec, options: LayerOptions, name: str) -> Any:
    """Predictions of a head on all levels.

    Returns:
        A float32 tensor of shape `(N, anchors, outputs)`, fine to coarse, within a level row by row.
    """
    shared, outputs = _shared_layers(head, options), []
    *steps, (last_depthwise, last_pointwise) = shared
    for level, x in maps.items():
        for step, (depthwise, pointwise) in enumerate(steps):
            norm = head.norm(step, level)
            x = options.batch_norm(pointwise(depthwise(x)), norm.name)
            x = options.activation(x, f"{norm.prefix}_activation")
        x = last_pointwise(last_depthwise(x))
        shape = (_positions(x.shape[1:]) // head.outputs, head.outputs)
        outputs.append(layers.Reshape(shape, dtype="float32", name=f"{head.name}_p{level}")(x))
    return layers.Concatenate(axis=1, dtype="float32", name=name)(outputs)


def _positions(shape: Iterable[int]) -> int:
    return math.prod(shape)
