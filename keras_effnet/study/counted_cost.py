"""Scaling factors for equal counted MACs, and image sizes at which the MACs jump. Pure Python."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from keras_effnet.architecture.scaling import RESOLUTION_DIVISOR
from keras_effnet.architecture.specs import LARGEST_IMAGE, ArchitectureSpec, expand
from keras_effnet.complexity.counting import count

_FINEST = 1000  # steps of a factor of depth or width in 1
_LARGEST = 64  # factor
_JUMP = 1.25  # MACs as a multiple of what the area explains, from which on a size is a jump


def counted(spec: ArchitectureSpec) -> int:
    """MACs of a network without its classifier, whose number of classes is not known before the data."""
    return count(spec, include_top=False).macs


def solved_factor(axis: str, base: ArchitectureSpec, target: float) -> float:
    """Factor along one axis with which the rounded network has the MACs closest to a target.

    Args:
        axis: `"depth"`, `"width"` or `"resolution"`.
        base: `ArchitectureSpec`.
        target: Float, MACs without the classifier.

    Returns:
        Float: for resolution a multiple of 4 pixels, otherwise a multiple of 1/1000. Blocks, channels and pixels are
        whole, so the target is met as closely as they allow.
    """
    unit = base.image_size / RESOLUTION_DIVISOR if axis == "resolution" else _FINEST

    def macs(steps: int) -> int:
        return counted(base.scaled(**{axis: steps / unit}))

    least = math.ceil(32 / RESOLUTION_DIVISOR) if axis == "resolution" else 1
    most = LARGEST_IMAGE // RESOLUTION_DIVISOR if axis == "resolution" else _LARGEST * _FINEST
    few, many = least, max(least, round(unit))
    if macs(few) >= target:
        return few / unit
    while macs(many) < target and many < most:
        few, many = many, min(2 * many, most)
    while many - few > 1:  # MACs never fall as a factor grows
        middle = (few + many) // 2
        few, many = (few, middle) if macs(middle) >= target else (middle, many)
    return min((few, many), key=lambda steps: abs(math.log(macs(steps) / target))) / unit


@dataclass(frozen=True)
class Jump:
    """An image size whose last feature map has just grown, so that its MACs exceed what its area explains.

    Args:
        size: Int, pixels.
        below: Int, the largest size without a jump that is not above it.
        above: Int, the smallest size without a jump that is not below it.
        last_map: Int, side of the last feature map.
        macs: Int, MACs without the classifier.
        growth: Float, MACs relative to those at `below`.
        area: Float, number of pixels relative to those at `below`.
    """

    size: int
    below: int
    above: int
    last_map: int
    macs: int
    growth: float
    area: float

    def __str__(self) -> str:
        side = f"{self.last_map}x{self.last_map}"
        return (
            f"at {self.size} pixels the last feature map has just grown to {side}: {self.macs / 1e6:.1f} million MACs, "
            f"x{self.growth:.2f} those at {self.below} pixels, for x{self.area:.2f} the area"
        )


def size_jump(spec: ArchitectureSpec) -> Jump | None:
    """Tell whether a network's image size lies behind a jump of its MACs; None if it does not."""
    size = spec.image_size
    stride = _total_stride(spec)
    below = size // stride * stride
    if below in (0, size):
        return None
    macs, before = counted(spec), counted(replace(spec, image_size=below))
    growth, area = macs / before, (size / below) ** 2
    if growth < _JUMP * area:
        return None
    return Jump(size, below, below + stride, _last_map(spec), macs, growth, area)


def _last_map(spec: ArchitectureSpec) -> int:
    return expand(spec).blocks[-1].output.out_size


def _total_stride(spec: ArchitectureSpec) -> int:
    large = 4096
    return large // _last_map(replace(spec, image_size=large))
