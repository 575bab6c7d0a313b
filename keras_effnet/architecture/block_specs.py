"""Blocks as data, with computed channels, strides and sizes: the output of `expand`. Pure Python.

`models` turns them into layers, `complexity` into costs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvSpec:
    """One convolution with all values that building its layer and counting its cost need.

    Layer names are derived from it: `block2b_expand` and `conv` give `block2b_expand_conv`, `block2b_expand_bn`,
    `block2b_expand_activation`, which are `keras.applications`' names.
    """

    prefix: str
    op: str
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    in_size: int
    depthwise: bool = False
    norm: bool = True  # batch normalization follows
    act: bool = True
    bias: bool = False

    @property
    def name(self) -> str:
        """Name of the layer."""
        return f"{self.prefix}_{self.op}"

    @property
    def out_size(self) -> int:
        """ceil(in / stride), for odd kernels under both TensorFlow's "same" and symmetric padding."""
        return -(-self.in_size // self.stride)


@dataclass(frozen=True)
class NormSpec:
    """Batch normalization and activation without a convolution before them: `top_bn`, `top_activation`."""

    prefix: str
    out_channels: int
    norm: bool = True
    act: bool = True

    @property
    def name(self) -> str:
        """Name of the layer."""
        return f"{self.prefix}_bn"


@dataclass(frozen=True)
class MBConvSpec:
    """Inverted bottleneck: expand, depthwise, squeeze-and-excite, project. Absent parts are None."""

    name: str
    expand: ConvSpec | None
    depthwise: ConvSpec
    se_reduce: ConvSpec | None
    se_expand: ConvSpec | None
    project: ConvSpec
    residual: bool
    drop_rate: float

    @property
    def weighted(self) -> tuple[ConvSpec, ...]:
        """Parts with weights, in order."""
        parts = (self.expand, self.depthwise, self.se_reduce, self.se_expand, self.project)
        return tuple(part for part in parts if part)

    @property
    def output(self) -> ConvSpec:
        """The convolution that has the block's output shape."""
        return self.project


@dataclass(frozen=True)
class FusedMBConvSpec:
    """Inverted bottleneck with one spatial convolution: expand and project, or with ratio 1 a single convolution.

    Source: Gupta & Tan, EfficientNet-EdgeTPU (2019); Tan & Le, EfficientNetV2 (ICML 2021), figure 2.
    """

    name: str
    expand: ConvSpec | None
    project: ConvSpec
    residual: bool
    drop_rate: float

    @property
    def weighted(self) -> tuple[ConvSpec, ...]:
        """Parts with weights, in order."""
        return (self.expand, self.project) if self.expand else (self.project,)

    @property
    def output(self) -> ConvSpec:
        """The convolution whose output shape is that of the block."""
        return self.project


@dataclass(frozen=True)
class ResNetBlockSpec:
    """A branch of two (basic) or three (bottleneck) convolutions, with a 1x1 shortcut where the shape changes."""

    name: str
    branch: tuple[ConvSpec, ...]
    shortcut: ConvSpec | None
    drop_rate: float

    @property
    def weighted(self) -> tuple[ConvSpec | NormSpec, ...]:
        """Parts with weights, in order."""
        return (*self.branch, self.shortcut) if self.shortcut else self.branch

    @property
    def output(self) -> ConvSpec:
        """The convolution whose output shape is that of the block."""
        return self.branch[-1]


@dataclass(frozen=True)
class PreActBlockSpec(ResNetBlockSpec):
    """A block that first normalizes and activates its input, for the branch and for a projected shortcut."""

    pre: NormSpec

    @property
    def weighted(self) -> tuple[ConvSpec | NormSpec, ...]:
        """All parts that have weights, in order."""
        return (self.pre, *super().weighted)


Block = MBConvSpec | FusedMBConvSpec | ResNetBlockSpec | PreActBlockSpec
