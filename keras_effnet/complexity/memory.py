"""Training memory predicted from a spec. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from keras_effnet.architecture.block_specs import ConvSpec, MBConvSpec, NormSpec, ResNetBlockSpec
from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.architecture.pyramid import DetectorNetwork, expand_detector
from keras_effnet.architecture.specs import ArchitectureSpec, Network, expand
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError, one_of

# The backward pass of normalization reads its input. That of a ReLU needs only its output; every other activation also
# needs its input.
_RELUS = ("relu", "relu6")


# Gradients in flight and allocator overhead. Fitted to training steps of B0, Lite0 and ResNet-18 in float32 at 32 to
# 224 pixels and batches of 8 to 32 (TensorFlow on a CPU), which took 1.07 to 1.18 times the sum.
_KEPT = 1.15


# Bytes of the traced program, validation included: a constant, and so much for each part with weights. B0 took 0.5 to
# 0.6 GB, Lite0 0.4 and ResNet-18 0.25. Without fused batch normalization B0 takes 0.3 GB more.
_PROGRAM, _PROGRAM_PART = 150e6, 5e6
# Of a part behind the backbone of a detector, by steps of det-lite0 and of a smaller detector at 96 to 320 pixels.
_PROGRAM_PYRAMID_PART = 2.5e6


@dataclass(frozen=True)
class TrainingMemory:
    """Peak memory of training in bytes, see `training_bytes`.

    Args:
        parameters: Int, weights, moving statistics, and the moving average of the weights if there is one.
        gradients: Int, gradients of all parameters.
        optimizer: Int, optimizer slots.
        activations: Int, activations kept for the backward pass, for a whole batch.
        program: Int, the traced program in host memory; 0 if another device trains.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    program: int = 0

    @property
    def total(self) -> int:
        """Sum in bytes."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.program

    def __str__(self) -> str:
        weights = (self.parameters + self.gradients + self.optimizer) / 1e9
        program = f", program {self.program / 1e9:.1f}" if self.program else ""
        return (
            f"{self.total / 1e9:.1f} GB (activations {self.activations / 1e9:.1f}, "
            f"weights and optimizer {weights:.1f}{program})"
        )


Parts: TypeAlias = Iterable[tuple[ConvSpec | NormSpec, int]]


def _kept_elements(part: ConvSpec | NormSpec, activation: str, out_size: int) -> tuple[int, int]:
    """Elements kept for the backward pass of one image: always in float32, and in the compute precision."""
    elements = part.out_channels * out_size**2
    after = (1 if activation in _RELUS else 2) if part.act else int(part.norm)
    if isinstance(part, NormSpec):  # its input is counted as the output of the part before
        return 0, after * elements
    # Keras normalizes in float32, so under mixed precision a float32 copy is kept.
    return (elements, after * elements) if part.norm else (0, (1 + after) * elements)


def _sized_parts(network: Network) -> Iterable[tuple[ConvSpec | NormSpec, int]]:
    """Parts with weights, except for the classifier, each with the side of its output."""
    yield network.stem, network.stem.out_size
    for block in network.blocks:
        for part in block.weighted:
            if isinstance(part, ConvSpec):
                yield part, part.out_size
            elif isinstance(block, ResNetBlockSpec):  # a normalization in front of the branch
                yield part, block.branch[0].in_size
    if network.head:
        yield network.head, network.blocks[-1].output.out_size


def _detector_parts(network: DetectorNetwork) -> Iterable[tuple[ConvSpec | NormSpec, int]]:
    """Parts behind the backbone of a detector, those of the heads once per level, each with the side of its output."""
    for extra in network.extra:
        if extra.project:
            yield extra.project, extra.project.out_size
    for node in (node for cell in network.cells for node in cell):
        # The inputs of a node, brought to its level and fused, are kept like outputs of convolutions.
        yield from ((replace(node.pointwise, norm=False), node.depthwise.in_size) for _ in node.inputs)
        yield NormSpec(node.name, node.pointwise.out_channels, norm=False), node.depthwise.in_size
        yield from ((part, part.out_size) for part in node.weighted)
    for head in network.heads:
        for level, steps in head.convolutions.items():
            yield from ((part, part.out_size) for pair in steps for part in pair)
            yield from ((head.norm(step, level), steps[step][1].out_size) for step in range(head.depth))


def _activation_bytes(spec: ArchitectureSpec, network: Network, width: int, others: Parts = ()) -> int:
    """Bytes for one image, `width` bytes per element of the compute precision; `others` follow the network."""
    stem = network.stem
    full, kept = 2 * stem.in_channels * stem.in_size**2, 0  # the pixels, and the normalized ones
    for part, size in (*_sized_parts(network), *others):
        in_float32, in_width = _kept_elements(part, spec.activation, size)
        full, kept = full + in_float32, kept + in_width
    for block in network.blocks:
        if isinstance(block, MBConvSpec) and block.se_reduce:  # the gated channels, input of the projection
            kept += block.depthwise.out_channels * block.depthwise.out_size**2
    if spec.stem_pool:
        kept += stem.out_channels * stem.out_size**2 * 5 // 4  # padded map and pooled map
    return int(_KEPT * (4 * full + width * kept))


def training_bytes(
    spec: ArchitectureSpec | DetectorSpec,
    batch_size: int,
    *,
    image_size: int | None = None,
    precision: str = "float32",
    optimizer_slots: int = 2,
    ema: bool = False,
    classes: int | None = None,
    device: str = "cpu",
) -> TrainingMemory:
    """Predict the peak memory of training without building the network.

    Args:
        spec: `ArchitectureSpec` or `DetectorSpec`.
        batch_size: Int, images per step.
        image_size: Int, side of the input in pixels; the spec's own unless given.
        precision: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`. Weights are float32 under any of them.
        optimizer_slots: Int, values that the optimizer keeps per parameter: 2 for Adam, 1 for momentum.
        ema: Bool, whether a moving average of the weights is kept.
        classes: Int, outputs of the classifier, 1000 by default; for a detector, its spec's.
        device: `"cpu"`, where the traced program takes the same memory, or `"gpu"`, where it does not.

    Returns:
        A `TrainingMemory`, in bytes.

    Raises:
        UserError: An unknown precision or device, or a batch size below 1.

    Example:

    >>> print(training_bytes(architecture_spec("b0"), 32))
    """
    one_of("precision", precision, ("float32", "mixed_float16", "mixed_bfloat16"))
    one_of("device", device, ("cpu", "gpu"))
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    cost = count(spec, image_size=image_size, classes=classes)
    backbone, network, others = _expanded(spec, image_size)
    width = 4 if precision == "float32" else 2
    parts, pyramid = sum(1 for _ in _sized_parts(network)) + 1, len({part.name for part, _ in others})
    program = _PROGRAM + _PROGRAM_PART * parts + _PROGRAM_PYRAMID_PART * pyramid
    return TrainingMemory(
        parameters=4 * (cost.total_params + cost.params * ema),
        gradients=4 * cost.params,
        optimizer=4 * cost.params * optimizer_slots,
        activations=batch_size * _activation_bytes(backbone, network, width, others),
        program=int(program) if device == "cpu" else 0,
    )


def _expanded(
    spec: ArchitectureSpec | DetectorSpec, image_size: int | None
) -> tuple[ArchitectureSpec, Network, tuple[tuple[ConvSpec | NormSpec, int], ...]]:
    """Backbone, its expansion, and the parts of a detector behind it."""
    if isinstance(spec, DetectorSpec):
        network = expand_detector(spec, image_size=image_size)
        return spec.backbone, network.backbone, tuple(_detector_parts(network))
    return spec, expand(spec, image_size=image_size), ()
