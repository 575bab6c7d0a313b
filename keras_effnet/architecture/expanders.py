"""Expansion of one block: a row of a stage table, with channels, stride and size, becomes convolutions. Pure Python."""

from __future__ import annotations

from collections.abc import Callable

from keras_effnet.architecture.block_specs import (
    Block,
    ConvSpec,
    FusedMBConvSpec,
    MBConvSpec,
    NormSpec,
    PreActBlockSpec,
    ResNetBlockSpec,
)
from keras_effnet.architecture.scaling import round_filters


def _expand_mbconv(name, stage, stride, in_channels, out_channels, size, drop_rate) -> MBConvSpec:
    hidden = in_channels * stage.expand
    expand = se_reduce = se_expand = None
    if stage.expand != 1:
        expand = ConvSpec(f"{name}_expand", "conv", 1, 1, in_channels, hidden, size)
    depthwise = ConvSpec(name, stage.depthwise, stage.kernel, stride, hidden, hidden, size, depthwise=True)
    if stage.se_ratio:
        # The ratio refers to the block's input, not to the expanded channels.
        squeezed = max(1, int(in_channels * stage.se_ratio))
        se_reduce = ConvSpec(f"{name}_se", "reduce", 1, 1, hidden, squeezed, 1, norm=False, bias=True)
        se_expand = ConvSpec(f"{name}_se", "expand", 1, 1, squeezed, hidden, 1, norm=False, act=False, bias=True)
    project = ConvSpec(f"{name}_project", "conv", 1, 1, hidden, out_channels, depthwise.out_size, act=False)
    residual = stride == 1 and in_channels == out_channels
    return MBConvSpec(name, expand, depthwise, se_reduce, se_expand, project, residual, drop_rate)


def _expand_fused(name, stage, stride, in_channels, out_channels, size, drop_rate) -> FusedMBConvSpec:
    residual = stride == 1 and in_channels == out_channels
    if stage.expand == 1:
        project = ConvSpec(f"{name}_project", "conv", stage.kernel, stride, in_channels, out_channels, size)
        return FusedMBConvSpec(name, None, project, residual, drop_rate)
    hidden = in_channels * stage.expand
    expand = ConvSpec(f"{name}_expand", "conv", stage.kernel, stride, in_channels, hidden, size)
    project = ConvSpec(f"{name}_project", "conv", 1, 1, hidden, out_channels, expand.out_size, act=False)
    return FusedMBConvSpec(name, expand, project, residual, drop_rate)


def _conv(name, op, kernel, stride, in_channels, out_channels, size, **parts) -> ConvSpec:
    return ConvSpec(f"{name}_{op}", "conv", kernel, stride, in_channels, out_channels, size, **parts)


def _shortcut(name, stride, in_channels, out_channels, size, **parts) -> ConvSpec | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return _conv(name, "shortcut", 1, stride, in_channels, out_channels, size, act=False, **parts)


def _expand_basic(name, stage, stride, in_channels, out_channels, size, drop_rate) -> ResNetBlockSpec:
    first = _conv(name, 1, stage.kernel, stride, in_channels, out_channels, size)
    second = _conv(name, 2, stage.kernel, 1, out_channels, out_channels, first.out_size, act=False)
    shortcut = _shortcut(name, stride, in_channels, out_channels, size)
    return ResNetBlockSpec(name, (first, second), shortcut, drop_rate)


def _expand_bottleneck(name, stage, stride, in_channels, out_channels, size, drop_rate) -> ResNetBlockSpec:
    inner = round_filters(out_channels, stage.inner)
    reduce = _conv(name, 1, 1, 1, in_channels, inner, size)
    # The stride is on the spatial kernel (ResNet v1.5): a 1x1 with stride 2 ignores three quarters of its input.
    spatial = _conv(name, 2, stage.kernel, stride, inner, inner, size)
    widen = _conv(name, 3, 1, 1, inner, out_channels, spatial.out_size, act=False)
    shortcut = _shortcut(name, stride, in_channels, out_channels, size)
    return ResNetBlockSpec(name, (reduce, spatial, widen), shortcut, drop_rate)


def _expand_preact(name, stage, stride, in_channels, out_channels, size, drop_rate) -> PreActBlockSpec:
    first = _conv(name, 1, stage.kernel, stride, in_channels, out_channels, size)
    second = _conv(name, 2, stage.kernel, 1, out_channels, out_channels, first.out_size, norm=False, act=False)
    shortcut = _shortcut(name, stride, in_channels, out_channels, size, norm=False)
    return PreActBlockSpec(name, (first, second), shortcut, drop_rate, pre=NormSpec(f"{name}_pre", in_channels))


EXPANDERS: dict[str, Callable[..., Block]] = {
    "mbconv": _expand_mbconv,
    "fused": _expand_fused,
    "basic": _expand_basic,
    "bottleneck": _expand_bottleneck,
    "preact": _expand_preact,
}
