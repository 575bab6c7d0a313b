"""Blocks as data, with every channel, stride and size computed: what `architecture.expand` makes of a stage table.

`blocks` turns these into layers, `complexity` into costs. Pure Python: imports nothing of the package.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvSpec:
    """One convolution with everything computed: what a layer needs to be built and a cost needs to be counted.

    Layer names derive from it: `block2b_expand` + `conv` gives `block2b_expand_conv`, `block2b_expand_bn`,
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
        """ceil(in / stride): true of TensorFlow's "same" and of symmetric padding alike, for odd kernels."""
        return -(-self.in_size // self.stride)


@dataclass(frozen=True)
class NormSpec:
    """Batch normalization and activation that follow no convolution of their own: `top_bn`, `top_activation`."""

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
        """All that has weights, in order; so in every block."""
        parts = (self.expand, self.depthwise, self.se_reduce, self.se_expand, self.project)
        return tuple(part for part in parts if part)

    @property
    def output(self) -> ConvSpec:
        """The convolution whose shape is the block's; so in every block."""
        return self.project


@dataclass(frozen=True)
class ResNetBlockSpec:
    """A branch of two convolutions (basic) or three (bottleneck), and a 1x1 on the shortcut where the shape changes."""

    name: str
    branch: tuple[ConvSpec, ...]
    shortcut: ConvSpec | None
    drop_rate: float

    @property
    def weighted(self) -> tuple[ConvSpec, ...]:
        """All parts that have weights, in order."""
        return (*self.branch, self.shortcut) if self.shortcut else self.branch

    @property
    def output(self) -> ConvSpec:
        """The convolution whose output shape is that of the block."""
        return self.branch[-1]


@dataclass(frozen=True)
class PreActBlockSpec(ResNetBlockSpec):
    """A block whose input is normalized and activated first, for branch and projected shortcut alike."""

    pre: NormSpec

    @property
    def weighted(self) -> tuple[ConvSpec | NormSpec, ...]:
        """All parts that have weights, in order."""
        return (self.pre, *super().weighted)
