"""Why MACs do not turn into time: what each kind of convolution computes for every byte that it moves.

A processor computes so fast and moves so many bytes a second. What does little with each byte waits for memory,
however few MACs it has (the roofline model). `roofline` measures what is only counted here.

Pure Python: imports `architecture`, `block_specs`, `complexity`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keras_effnet.architecture.block_specs import ConvSpec, MBConvSpec, PreActBlockSpec, ResNetBlockSpec
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
    """What a machine can do at most, in float32.

    Args:
        gflops: Float, 1e9 floating point operations a second.
        gbytes_per_s: Float, 1e9 bytes a second to and from memory.
        device: String, the processor's name. A figure without it says nothing.
    """

    gflops: float
    gbytes_per_s: float
    device: str

    def bound(self, intensity: float) -> float:
        """The roofline: GFLOP/s that are possible at so many FLOPs a byte, if each byte comes from memory."""
        return min(self.gflops, intensity * self.gbytes_per_s)


@dataclass(frozen=True)
class Work:
    """What some convolutions compute and move.

    Args:
        macs: Int, for one image, as `complexity` counts them.
        flops: Int, for the batch: 2 x MACs an image.
        bytes: Int, for the batch, at least: inputs and weights read once, outputs written once.
    """

    macs: int
    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes

    @classmethod
    def total(cls, parts: Iterable[Work]) -> Work:
        """The sum of some parts' work."""
        parts = list(parts)
        return cls(*(sum(getattr(part, field) for part in parts) for field in ("macs", "flops", "bytes")))


@dataclass(frozen=True)
class KindCost:
    """One kind of convolution in one network: what it computes, and how fast.

    Args:
        kind: String, see `convolutions`.
        macs: Int, for one image.
        intensity: Float, FLOPs a byte.
        gflops: Float, 1e9 FLOPs a second, attained.
        seconds_share: Float in 0..1, of the time of all convolutions.
        bound_gflops: Float, what the roofline allows.
    """

    kind: str
    macs: int
    intensity: float
    gflops: float
    seconds_share: float
    bound_gflops: float


@dataclass(frozen=True)
class Roofline:
    """The convolutions of a network by kind against what a machine can do. `dataclasses.asdict` makes JSON of it.

    Args:
        model: String, name of the spec.
        image_size: Int, pixels.
        batch_size: Int, images.
        peaks: `Peaks`.
        seconds: Float, of all convolutions for one batch, each run alone.
        kinds: Tuple of `KindCost`, in the order in which they first come in the network.
    """

    model: str
    image_size: int
    batch_size: int
    peaks: Peaks
    seconds: float
    kinds: tuple[KindCost, ...]


def _of_block(block: MBConvSpec | ResNetBlockSpec | PreActBlockSpec) -> Iterator[tuple[str, ConvSpec]]:
    if isinstance(block, MBConvSpec):
        parts = ((kind, getattr(block, field)) for field, kind in _MBCONV_KINDS.items())
        yield from ((kind, conv) for kind, conv in parts if conv)
    else:
        convs = (part for part in block.weighted if isinstance(part, ConvSpec))
        yield from ((f"{conv.kernel}x{conv.kernel}", conv) for conv in convs)


def convolutions(spec: ArchitectureSpec, *, classes: int = 1000) -> dict[str, list[ConvSpec]]:
    """The convolutions of a network by kind, in order.

    Kinds of inverted bottlenecks are `"expand 1x1"`, `"depthwise"`, `"squeeze-and-excite"` and `"project 1x1"`; those
    of ResNets go by their kernel, `"3x3"` or `"1x1"`, shortcuts included. All networks have a `"stem"` and a
    `"classifier"`, which is a 1x1 convolution on one pixel; some have a `"head 1x1"`.

    Args:
        spec: `ArchitectureSpec`.
        classes: Int, outputs of the classifier.
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
    """What one convolution computes and moves for a batch, in float32.

    Args:
        conv: `ConvSpec`.
        batch_size: Int, images.
    """
    macs, positions = part_cost(conv).macs, conv.out_size**2
    weights = macs // positions
    side = min(conv.in_size, conv.kernel * conv.out_size)  # a 1x1 of stride 2 leaves three of four pixels unread
    moved = batch_size * (side**2 * conv.in_channels + positions * conv.out_channels) + weights
    return Work(macs, 2 * macs * batch_size, _BYTES * moved)


def work_by_kind(spec: ArchitectureSpec, batch_size: int, *, classes: int = 1000) -> dict[str, Work]:
    """What the kinds of convolution in a network compute and move for a batch, in float32.

    Args:
        spec: `ArchitectureSpec`; its `image_size` is the input's.
        batch_size: Int, images.
        classes: Int, outputs of the classifier.

    Returns:
        A `Work` for each kind, in the order in which they first come in the network.

    Example:

    >>> work_by_kind(architecture_spec("b0"), 32)["depthwise"].intensity

    Source: Williams, Waterman & Patterson, Roofline (Communications of the ACM, 2009).
    """
    kinds = convolutions(spec, classes=classes)
    return {kind: Work.total(work(conv, batch_size) for conv in convs) for kind, convs in kinds.items()}
