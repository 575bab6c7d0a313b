"""Expansion of a `DetectorSpec` into convolutions: extra levels, BiFPN nodes and heads. Pure Python.

`models.detectors` turns them into layers and `complexity` into costs, so the two always agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from keras_effnet.architecture.block_specs import ConvSpec, NormSpec
from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.architecture.specs import Network, expand


@dataclass(frozen=True)
class ExtraLevel:
    """A level beyond the backbone: a 1x1 convolution where the channels differ, then 3x3 max pooling of stride 2."""

    level: int
    project: ConvSpec | None


@dataclass(frozen=True)
class NodeInput:
    """One input of a BiFPN node.

    Args:
        source: String, `"p4"` for the map that the cell receives, or the name of a node of the same cell.
        level: Int, level of that map.
        project: Convolution to the BiFPN's width, or None where the channels agree.
    """

    source: str
    level: int
    project: ConvSpec | None


@dataclass(frozen=True)
class FusionNode:
    """A BiFPN node: inputs brought to its level and width are fused, activated, and convolved.

    Args:
        name: String, such as `"cell1_p4_td"` (top-down) or `"cell1_p4_bu"` (bottom-up).
        level: Int, level of its output.
        inputs: Tuple of two or three `NodeInput`s.
        depthwise, pointwise: The separable convolution; batch normalization follows, no activation.
    """

    name: str
    level: int
    inputs: tuple[NodeInput, ...]
    depthwise: ConvSpec
    pointwise: ConvSpec

    @property
    def weighted(self) -> tuple[ConvSpec, ...]:
        """Convolutions, in order."""
        projections = tuple(each.project for each in self.inputs if each.project)
        return (*projections, self.depthwise, self.pointwise)


@dataclass(frozen=True)
class HeadSpec:
    """A head: separable convolutions that all levels share, with batch normalizations of each level's own.

    Args:
        name: `"class"` or `"box"`.
        outputs: Int, values per anchor.
        depth: Int, separable convolutions before the prediction.
        convolutions: Level -> the depthwise and pointwise convolution of every step at that level's size; the last pair
            is the prediction.
    """

    name: str
    outputs: int
    depth: int
    convolutions: dict[int, tuple[tuple[ConvSpec, ConvSpec], ...]]

    def norm(self, step: int, level: int) -> NormSpec:
        """Batch normalization and activation that follow a step at a level."""
        return NormSpec(f"{self.name}_head{step + 1}_p{level}", self.convolutions[level][step][1].out_channels)


@dataclass(frozen=True)
class DetectorNetwork:
    """An expanded `DetectorSpec`; `sizes` has the side of the feature map of every level."""

    backbone: Network
    sizes: dict[int, int]
    extra: tuple[ExtraLevel, ...]
    cells: tuple[tuple[FusionNode, ...], ...]
    heads: tuple[HeadSpec, HeadSpec]

    @property
    def anchors(self) -> int:
        """Number of anchors."""
        cells = sum(size**2 for size in self.sizes.values())
        return cells * self.heads[1].convolutions[min(self.sizes)][-1][1].out_channels // 4


def _project(name: str, channels: int, width: int, size: int) -> ConvSpec | None:
    if channels == width:
        return None
    return ConvSpec(name, "conv", 1, 1, channels, width, size, act=False, bias=True)


def _separable(name: str, in_channels: int, out_channels: int, size: int, norm: bool) -> tuple[ConvSpec, ConvSpec]:
    depthwise = ConvSpec(name, "dwconv", 3, 1, in_channels, in_channels, size, depthwise=True, norm=False, act=False)
    return depthwise, ConvSpec(name, "conv", 1, 1, in_channels, out_channels, size, norm=norm, act=False, bias=True)


def _node_sources(levels: range) -> Iterator[tuple[str, int, tuple[tuple[str, int], ...]]]:
    """Suffix, level and inputs of every node of a cell: top-down from the second coarsest level, then bottom-up."""
    finest, coarsest = levels[0], levels[-1]
    for level in reversed(levels[:-1]):
        coarser = f"p{level + 1}_td" if level + 1 < coarsest else f"p{level + 1}"
        yield f"p{level}_td", level, ((f"p{level}", level), (coarser, level + 1))
    for level in levels[1:]:
        finer = f"p{level - 1}_bu" if level - 1 > finest else f"p{level - 1}_td"
        top_down = ((f"p{level}_td", level),) if level < coarsest else ()
        yield f"p{level}_bu", level, ((f"p{level}", level), *top_down, (finer, level - 1))


def _cell(spec: DetectorSpec, number: int, channels: dict[int, int], sizes: dict[int, int]) -> tuple[FusionNode, ...]:
    prefix, nodes = f"cell{number}", []
    for suffix, level, sources in _node_sources(spec.all_levels):
        name = f"{prefix}_{suffix}"
        inputs = []
        for source, at in sources:
            received = "_" not in source
            width = channels[at] if received else spec.width
            inputs.append(
                NodeInput(
                    source if received else f"{prefix}_{source}",
                    at,
                    _project(f"{name}_from_p{at}", width, spec.width, sizes[at]),
                )
            )
        nodes.append(
            FusionNode(name, level, tuple(inputs), *_separable(name, spec.width, spec.width, sizes[level], norm=True))
        )
    return tuple(nodes)


def _head(spec: DetectorSpec, name: str, outputs: int, sizes: dict[int, int]) -> HeadSpec:
    convolutions = {}
    for level, size in sizes.items():
        steps = [
            _separable(f"{name}_head{step + 1}", spec.width, spec.width, size, norm=False)
            for step in range(spec.head_depth)
        ]
        predicted = outputs * spec.anchors_per_cell
        convolutions[level] = (*steps, _separable(f"{name}_predict", spec.width, predicted, size, norm=False))
    return HeadSpec(name, outputs, spec.head_depth, convolutions)


@lru_cache(maxsize=64)
def expand_detector(spec: DetectorSpec, channels: int = 3, image_size: int | None = None) -> DetectorNetwork:
    """Expand a detector into convolutions with computed channels and sizes.

    Args:
        spec: `DetectorSpec`.
        channels: Int, of the input.
        image_size: Int, side of the input in pixels; the spec's by default.

    Returns:
        A `DetectorNetwork`. Its backbone ends with the last block: the last 1x1 convolution is not part of a detector.

    Example:

    >>> expand_detector(detector_spec("det-d0")).anchors
    49104
    """
    full = expand(spec.backbone, channels=channels, image_size=image_size or spec.image_size)
    levels = {level: full.blocks[index].output for level, index in spec.backbone_levels.items()}
    taken = [level for level in spec.all_levels if level in levels]
    last = spec.backbone_levels[taken[-1]]
    backbone = Network(full.stem, full.blocks[: last + 1], None)
    sizes = {level: levels[level].out_size for level in taken}
    widths = {level: levels[level].out_channels for level in taken}
    extra = []
    for level in spec.all_levels:
        if level not in sizes:
            extra.append(ExtraLevel(level, _project(f"p{level}", widths[level - 1], spec.width, sizes[level - 1])))
            sizes[level], widths[level] = -(-sizes[level - 1] // 2), spec.width
    same = dict.fromkeys(widths, spec.width)
    cells = tuple(_cell(spec, number + 1, same if number else widths, sizes) for number in range(spec.cells))
    heads = (_head(spec, "class", spec.classes, sizes), _head(spec, "box", 4, sizes))
    return DetectorNetwork(backbone, sizes, tuple(extra), cells, heads)
