"""Arithmetic intensity of each kind of convolution: FLOPs per byte of memory traffic. Pure Python.

By the roofline model, operations of low intensity are bound by memory bandwidth, however few MACs they have.
`study.measurement.roofline` measures the speed that is predicted from these counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keras_effnet.architecture.block_specs import Block, ConvSpec, FusedMBConvSpec, MBConvSpec
from keras_effnet.architecture.specs import ArchitectureSpec, expand
from keras_effnet.complexity.counting import part_cost

_BYTES = 4  # of a float32
_MBCONV_KINDS = {
    "expand": "expand 1x1",
    "depthwise": "depthwise",
    "se_reduce": "squeeze-and-excite",
    "se_expand": "squeeze-and-excite",
    "project": "project 1x1",
}


@dataclass(frozen=True)
class Peaks:
    """Peak performance of a machine in float32.

    Args:
        gflops: Float, 1e9 floating-point operations per second.
        gbytes_per_s: Float, memory bandwidth in 1e9 bytes per second.
        device: String, name of the processor.
    """

    gflops: float
    gbytes_per_s: float
    device: str

    def bound(self, intensity: float) -> float:
        """Roofline: attainable GFLOP/s at an intensity in FLOPs per byte, if all data comes from memory."""
        return min(self.gflops, intensity * self.gbytes_per_s)


@dataclass(frozen=True)
class Work:
    """Computation and memory traffic of some convolutions.

    Args:
        macs: Int, for one image, as `count` counts them.
        flops: Int, for the batch: 2 x MACs per image.
        bytes: Int, lower bound for the batch: inputs and weights read once, outputs written once.
    """

    macs: int
    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes

    @classmethod
    def total(cls, parts: Iterable[Work]) -> Work:
        """Sum over some parts."""
        parts = list(parts)
        return cls(*(sum(getattr(part, field) for part in parts) for field in ("macs", "flops", "bytes")))


@dataclass(frozen=True)
class KindCost:
    """Measured speed of one kind of convolution in one network.

    Args:
        kind: String, see `convolutions`.
        macs: Int, for one image.
        intensity: Float, FLOPs per byte.
        gflops: Float, measured speed in 1e9 FLOPs per second.
        seconds_share: Float in 0..1, share of the time of all convolutions.
        bound_gflops: Float, upper bound by the roofline.
    """

    kind: str
    macs: int
    intensity: float
    gflops: float
    seconds_share: float
    bound_gflops: float


@dataclass(frozen=True)
class Roofline:
    """Convolutions of a network by kind, compared with the peaks of a machine.

    Args:
        model: String, name of the spec.
        image_size: Int, pixels.
        batch_size: Int, images per batch.
        peaks: `Peaks`.
        seconds: Float, total for one batch, each convolution run alone.
        kinds: Tuple of `KindCost`, in order of first occurrence in the network.
    """

    model: str
    image_size: int
    batch_size: int
    peaks: Peaks
    seconds: float
    kinds: tuple[KindCost, ...]


def _of_block(block: Block) -> Iterator[tuple[str, ConvSpec]]:
    if isinstance(block, MBConvSpec):
        parts = ((kind, getattr(block, field)) for field, kind in _MBCONV_KINDS.items())
        yield from ((kind, conv) for kind, conv in parts if conv)
    elif isinstance(block, FusedMBConvSpec):
        for conv in block.weighted:
            yield "project 1x1" if conv.kernel == 1 else f"fused {conv.kernel}x{conv.kernel}", conv
    else:
        convs = (part for part in block.weighted if isinstance(part, ConvSpec))
        yield from ((f"{conv.kernel}x{conv.kernel}", conv) for conv in convs)


def convolutions(spec: ArchitectureSpec, *, classes: int = 1000) -> dict[str, list[ConvSpec]]:
    """Group the convolutions of a network by kind, in order of first occurrence.

    Kinds in inverted bottlenecks are `"expand 1x1"`, `"depthwise"`, `"squeeze-and-excite"` and `"project 1x1"`; those
    of Fused-MBConv are `"fused 3x3"` and `"project 1x1"`. Those in ResNets are named by their kernel, `"3x3"` or
    `"1x1"`, shortcuts included. All networks have a `"stem"` and a `"classifier"`, which is a 1x1 convolution on one
    pixel; some have a `"head 1x1"`.

    Args:
        spec: `ArchitectureSpec`.
        classes: Int, outputs of the classifier.

    Returns:
        A dict from kind to a list of `ConvSpec`.
    """
    network = expand(spec)
    found: dict[str, list[ConvSpec]] = {"stem": [network.stem]}
    for block in network.blocks:
        for kind, conv in _of_block(block):
            found.setdefault(kind, []).append(conv)
    if isinstance(network.head, ConvSpec):
        found["head 1x1"] = [network.head]
    options = {"norm": False, "act": False, "bias": True}
    found["classifier"] = [ConvSpec("predictions", "conv", 1, 1, network.features, classes, 1, **options)]
    return found


def work(conv: ConvSpec, batch_size: int) -> Work:
    """Computation and memory traffic of one convolution for a batch in float32.

    Args:
        conv: `ConvSpec`.
        batch_size: Int, images per batch.

    Returns:
        A `Work`.
    """
    macs, positions = part_cost(conv).macs, conv.out_size**2
    weights = macs // positions
    side = min(conv.in_size, conv.kernel * conv.out_size)  # a 1x1 with stride 2 reads a quarter of the pixels
    moved = batch_size * (side**2 * conv.in_channels + positions * conv.out_channels) + weights
    return Work(macs, 2 * macs * batch_size, _BYTES * moved)


def work_by_kind(spec: ArchitectureSpec, batch_size: int, *, classes: int = 1000) -> dict[str, Work]:
    """Computation and memory traffic of each kind of convolution in a network, for a batch in float32.

    Args:
        spec: `ArchitectureSpec`; its `image_size` is the side of the input.
        batch_size: Int, images per batch.
        classes: Int, outputs of the classifier.

    Returns:
        A dict from kind to `Work`, in order of first occurrence in the network.

    Example:

    >>> work_by_kind(architecture_spec("b0"), 32)["depthwise"].intensity

    Source: Williams, Waterman & Patterson, Roofline (Communications of the ACM, 2009).
    """
    kinds = convolutions(spec, classes=classes)
    return {kind: Work.total(work(conv, batch_size) for conv in convs) for kind, convs in kinds.items()}
