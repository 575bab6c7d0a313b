"""Architecture specs: stage tables, and their expansion into a flat list of convolutions. Pure Python.

`expand(spec)` computes every channel count, stride, size and drop rate once. `models.build` turns the convolutions into
layers and `complexity.count` adds up their cost, so the two always agree. `baselines` has the named networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from keras_effnet.architecture.block_specs import Block, ConvSpec, NormSpec
from keras_effnet.architecture.expanders import EXPANDERS
from keras_effnet.architecture.field_types import check_types
from keras_effnet.architecture.scaling import ScalingFactors, round_filters, round_repeats, round_resolution
from keras_effnet.errors import UserError, one_of, whole_number

# Pixel statistics in 0..255. A scalar fits any number of channels, a triple only RGB.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

LARGEST_IMAGE = 4096  # pixels of a side; no published network is half as large
_MOST_BLOCKS, _MOST_CHANNELS = 10_000, 10**6

# Keras' elementwise activations, under all their names.
ACTIVATIONS = (
    *("swish", "silu", "hard_swish", "hard_silu", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "mish"),
    *("sigmoid", "hard_sigmoid", "tanh", "softplus", "softsign", "linear"),
)


@dataclass(frozen=True)
class StageSpec:
    """One row of a stage table: blocks that share kernel and channels; only the first one has the stride.

    Args:
        kernel: Int, side of the spatial kernel.
        stride: Int, stride of the first block.
        expand: Int, expand ratio of `"mbconv"` and `"fused"` (1 = no expansion); other blocks use 1.
        filters: Int, output channels at width 1.
        repeats: Int, blocks at depth 1.
        block: `"mbconv"` (inverted bottleneck), `"fused"` (Fused-MBConv: one spatial convolution in place of expansion
            and depthwise convolution), `"basic"` (two spatial convolutions with a shortcut), `"bottleneck"` (a spatial
            one between two 1x1, with a shortcut) or `"preact"` (basic, with normalization and activation before each
            convolution).
        se_ratio: Float, squeeze-and-excite channels of `"mbconv"` as a share of the block's input; 0 for none.
        scale_depth: Bool, whether depth scaling adds blocks here. False in Lite's first and last stage.
        inner: Float, channels inside a `"bottleneck"` as a share of `filters`; other blocks ignore it.
        depthwise: `"dwconv"` or `"dwconv2"`, end of the name of `"mbconv"`'s depthwise layer: `keras.applications` has
            the second one in EfficientNetV2.
    """

    kernel: int
    stride: int
    expand: int
    filters: int
    repeats: int
    block: str = "mbconv"
    se_ratio: float = 0.0
    scale_depth: bool = True
    inner: float = 1.0
    depthwise: str = "dwconv"

    def __post_init__(self) -> None:
        check_types(self)
        one_of("block", self.block, EXPANDERS)
        if min(self.kernel, self.stride, self.expand, self.filters, self.repeats) < 1:
            raise UserError(f"A stage needs kernel, stride, expand, filters and repeats of at least 1, got {self}.")
        if max(self.kernel, self.stride, self.expand) > LARGEST_IMAGE:
            raise UserError(f"kernel, stride and expand of a stage must be at most {LARGEST_IMAGE}, got {self}.")
        if self.se_ratio and self.block != "mbconv":
            raise UserError(f"Only mbconv blocks have squeeze-and-excite; give {self.block!r} stages se_ratio=0.")
        one_of("depthwise", self.depthwise, ("dwconv", "dwconv2"))
        if self.inner <= 0:
            raise UserError(f"inner must be a positive share of the filters, got {self.inner}.")


@dataclass(frozen=True)
class ArchitectureSpec:
    """A convolutional network as data: a stage table and its scaling.

    Args:
        name: String, name of the network and of the Keras model.
        stages: Tuple of `StageSpec`, for depth 1 and width 1.
        stem: Int, channels of the first convolution.
        head: Int, channels of the last 1x1 convolution; 0 for none.
        depth, width: Floats, multipliers of repeats and channels.
        image_size: Int, side of the default input in pixels.
        activation: One of `ACTIVATIONS`, Keras' names.
        stem_kernel, stem_stride: Ints. A stride of 1 suits images of 32 to 64 pixels.
        stem_pool: Bool, a 3x3 max-pooling of stride 2 after the stem (ResNet).
        scale_stem, scale_head: Bools, whether width scaling applies to them. False in Lite.
        rounding_floor: Float in [0, 1], the smallest share of the scaled channels that rounding to a multiple of 8
            leaves; 0 in EfficientNetV2.
        dropout_rate: Float in [0, 1), before the classifier.
        drop_connect_rate: Float in [0, 1), stochastic depth: the drop rate of block i of N is this times i / N.
        padding: `"same"` (TensorFlow's) or `"symmetric"` (torch's); they differ at stride 2.
        bn_momentum, bn_epsilon: Floats, for every batch normalization.
        pixel_mean, pixel_std: Float or triple in 0..255, by which the network normalizes pixels.

    Source: EfficientNet (ICML 2019), table 1.
    """

    name: str
    stages: tuple[StageSpec, ...]
    stem: int
    head: int
    depth: float = 1.0
    width: float = 1.0
    image_size: int = 224
    activation: str = "swish"
    stem_kernel: int = 3
    stem_stride: int = 2
    stem_pool: bool = False
    scale_stem: bool = True
    scale_head: bool = True
    rounding_floor: float = 0.9
    dropout_rate: float = 0.2
    drop_connect_rate: float = 0.2
    padding: str = "same"
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    pixel_mean: float | tuple[float, ...] = field(default=IMAGENET_MEAN, repr=False)
    pixel_std: float | tuple[float, ...] = field(default=IMAGENET_STD, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))  # hashable, whatever sequence was given
        if not self.stages:
            raise UserError(f"{self.name} has no stages; give at least one StageSpec.")
        check_types(self)
        if self.image_size < 32:
            raise UserError(f"image_size must be at least 32 pixels, got {self.image_size}.")
        if self.image_size > LARGEST_IMAGE:
            raise UserError(f"image_size must be at most {LARGEST_IMAGE:,} pixels, got {self.image_size:,}.")
        if not 0 < min(self.depth, self.width) <= max(self.depth, self.width) < math.inf:
            raise UserError(f"depth and width must be positive and finite, got {self.depth} and {self.width}.")
        if self.depth * sum(stage.repeats for stage in self.stages) > _MOST_BLOCKS:
            raise UserError(f"{self.name} has more than {_MOST_BLOCKS:,} blocks; reduce depth or repeats.")
        if self.width * max(self.stem, self.head, *(stage.filters for stage in self.stages)) > _MOST_CHANNELS:
            raise UserError(
                f"{self.name} has layers of more than {_MOST_CHANNELS:,} channels; reduce width or filters."
            )
        if min(self.stem, self.stem_kernel, self.stem_stride) < 1 or self.head < 0:
            raise UserError("stem, stem_kernel and stem_stride must be at least 1, and head at least 0.")
        for name in ("dropout_rate", "drop_connect_rate", "bn_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.rounding_floor <= 1:
            raise UserError(f"rounding_floor must lie in [0, 1], got {self.rounding_floor}.")
        if self.bn_epsilon <= 0:
            raise UserError(f"bn_epsilon must be positive, got {self.bn_epsilon}.")
        one_of("padding", self.padding, ("same", "symmetric"))
        one_of("activation", self.activation, ACTIVATIONS)

    def scaled(self, depth: float = 1.0, width: float = 1.0, resolution: float = 1.0) -> ArchitectureSpec:
        """Copy with depth, width and resolution multiplied; 1.0 leaves a dimension unchanged."""
        ScalingFactors(depth, width, resolution)  # raises unless all are positive
        size = self.image_size if resolution == 1.0 else round_resolution(self.image_size * resolution)
        return replace(self, depth=self.depth * depth, width=self.width * width, image_size=size)


@dataclass(frozen=True)
class Network:
    """An expanded `ArchitectureSpec`: stem, blocks in order, and a head, which may be only a normalization."""

    stem: ConvSpec
    blocks: tuple[Block, ...]
    head: ConvSpec | NormSpec | None

    @property
    def features(self) -> int:
        """Channels of the last feature map."""
        return (self.head or self.blocks[-1].output).out_channels


def _letters(index: int) -> str:
    """0, 1, ... -> a, b, ..., z, aa, ab, ...: very deep stages need more than one letter."""
    head, tail = divmod(index, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)


@lru_cache(maxsize=128)
def expand(spec: ArchitectureSpec, channels: int = 3, image_size: int | None = None) -> Network:
    """Expand a spec into a flat list of blocks with computed channels, strides, sizes and drop rates.

    Depth scaling comes before the drop rates: block i of N has `drop_connect_rate * i / N`, where N is the number of
    blocks after scaling, so the last rate is `drop_connect_rate * (N - 1) / N` at any depth.

    Args:
        spec: `ArchitectureSpec`.
        channels: Int, of the input.
        image_size: Int, side of the input in pixels; the spec's by default.

    Returns:
        A `Network`.
    """
    scaled = partial(round_filters, width=spec.width, floor=spec.rounding_floor)
    stem_filters = scaled(spec.stem) if spec.scale_stem else spec.stem
    size = whole_number("image_size", image_size or spec.image_size)
    # A pre-activation block normalizes and activates its input, so the stem before it does neither.
    finish = spec.stages[0].block != "preact"
    stem = ConvSpec(
        "stem", "conv", spec.stem_kernel, spec.stem_stride, channels, stem_filters, size, norm=finish, act=finish
    )
    repeats = [round_repeats(s.repeats, spec.depth) if s.scale_depth else s.repeats for s in spec.stages]
    total = sum(repeats)

    blocks: list[Block] = []
    in_channels, size = stem_filters, -(-stem.out_size // 2) if spec.stem_pool else stem.out_size
    for number, (stage, count) in enumerate(zip(spec.stages, repeats, strict=True), start=1):
        out_channels = scaled(stage.filters)
        for index in range(count):
            block = EXPANDERS[stage.block](
                name=f"block{number}{_letters(index)}",
                stage=stage,
                stride=stage.stride if index == 0 else 1,
                in_channels=in_channels,
                out_channels=out_channels,
                size=size,
                drop_rate=spec.drop_connect_rate * len(blocks) / total,
            )
            blocks.append(block)
            in_channels, size = out_channels, block.output.out_size

    head: ConvSpec | NormSpec | None = None
    if spec.head:
        head_filters = scaled(spec.head) if spec.scale_head else spec.head
        head = ConvSpec("top", "conv", 1, 1, in_channels, head_filters, size)
    elif spec.stages[-1].block == "preact":
        head = NormSpec("top", in_channels)  # pre-activation blocks end in a sum without normalization
    return Network(stem, tuple(blocks), head)
