"""What a network costs, counted from its spec or from any built Keras model, and what memory training it takes.

Pure Python: imports `architecture`, `block_specs`, `errors`; a Keras model is read by its layers' attributes alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from keras_effnet.architecture.block_specs import ConvSpec, MBConvSpec, NormSpec
from keras_effnet.architecture.specs import ArchitectureSpec, Network, expand
from keras_effnet.errors import UserError, one_of


@dataclass(frozen=True)
class Cost:
    """The cost of one part of a network, for one picture.

    Args:
        name: String, the block or layer.
        macs: Int, multiply-adds of convolutions and dense layers, plus one per output element where there is a bias.
        params: Int, trainable parameters.
        activations: Int, output elements of convolutions and dense layers.
        non_trainable: Int, stored but not trained: moving means and variances, and the kernels of frozen layers.
    """

    name: str
    macs: int = 0
    params: int = 0
    activations: int = 0
    non_trainable: int = 0

    @classmethod
    def total(cls, name: str, parts: Iterable[Cost]) -> Cost:
        parts = list(parts)
        fields = ("macs", "params", "activations", "non_trainable")
        return cls(name, *(sum(getattr(part, field) for part in parts) for field in fields))


@dataclass(frozen=True)
class Complexity:
    """The cost of a whole network, for one picture, and of each of its `blocks` (for a Keras model: its layers)."""

    macs: int
    params: int
    activations: int
    blocks: tuple[Cost, ...]
    total_params: int

    @property
    def flops(self) -> int:
        """2 x MACs. The paper's "FLOPs" are MACs."""
        return 2 * self.macs

    @classmethod
    def of(cls, blocks: Iterable[Cost]) -> Complexity:
        blocks = tuple(blocks)
        total = Cost.total("total", blocks)
        return cls(total.macs, total.params, total.activations, blocks, total.params + total.non_trainable)


def part_cost(part: ConvSpec | NormSpec) -> Cost:
    """The cost of one convolution with the normalization behind it, or of a normalization alone, for one picture."""
    norm = 2 * part.out_channels if part.norm else 0  # gamma and beta; as many moving statistics
    if isinstance(part, NormSpec):
        return Cost(part.name, params=norm, non_trainable=norm)
    filters = 1 if part.depthwise else part.in_channels
    weights = (part.kernel**2 * filters + part.bias) * part.out_channels
    positions = part.out_size**2
    return Cost(
        name=part.name,
        macs=weights * positions,
        params=weights + norm,
        activations=part.out_channels * positions,
        non_trainable=norm,
    )


def _dense_cost(name: str, inputs: int, units: int, bias: bool = True) -> Cost:
    weights = inputs * units + bias * units
    return Cost(name, macs=weights, params=weights, activations=units)


def _count_spec(spec: ArchitectureSpec, image_size: int | None, classes: int, include_top: bool) -> Complexity:
    network = expand(spec, image_size=image_size)
    parts = [part_cost(network.stem)]
    parts += [Cost.total(block.name, map(part_cost, block.weighted)) for block in network.blocks]
    if network.head:
        parts.append(part_cost(network.head))
    if include_top:
        parts.append(_dense_cost("predictions", network.features, classes))
    return Complexity.of(parts)


def _layer_cost(layer) -> Cost:
    """One layer of a Keras model. Layers without weights that multiply (activations, pooling, adds) count nothing."""
    params = sum(prod(weight.shape) for weight in layer.trainable_weights)
    frozen = sum(prod(weight.shape) for weight in layer.non_trainable_weights)
    kind = type(layer).__name__
    if kind not in ("Conv2D", "DepthwiseConv2D", "Dense"):
        return Cost(layer.name, params=params, non_trainable=frozen)
    shape = layer.output.shape[1:]
    if None in shape:
        raise UserError(f"Layer {layer.name!r} has no fixed size; build the model with an input_shape to count it.")
    # Freezing a layer changes what is trained, not what it costs: count its kernel either way.
    kernel = prod(layer.kernel.shape)
    bias = layer.use_bias * shape[-1]
    positions = prod(shape[:-1]) if kind != "Dense" else 1
    return Cost(layer.name, (kernel + bias) * positions, params, prod(shape), frozen)


def _leaves(model) -> Iterable:
    for layer in model.layers:
        yield from _leaves(layer) if hasattr(layer, "layers") else (layer,)


def count(spec_or_model, *, image_size: int | None = None, classes: int = 1000, include_top: bool = True) -> Complexity:
    """Counts MACs, trainable parameters and activations per picture.

    MACs are the multiply-adds of every convolution (depthwise and squeeze-and-excite included) and of the dense layer,
    plus one per output element where there is a bias. Batch normalization, activations and elementwise products count
    nothing: inference folds or hides them.

    Args:
        spec_or_model: `ArchitectureSpec`, a name of `list_models()`'s specs expanded by `architecture_spec`, or any
            built Keras model of Conv2D, DepthwiseConv2D and Dense layers (nested models included).
        image_size: Int, side of the input in pixels, for a spec; its own unless given.
        classes: Int, for a spec.
        include_top: Bool, for a spec: whether the classifier counts.

    Returns:
        `Complexity(macs, params, activations, blocks, total_params)`.

    Raises:
        UserError: A Keras model whose layers have no fixed size.

    Example:

    >>> count(architecture_spec("b0")).macs
    385825092
    """
    if isinstance(spec_or_model, ArchitectureSpec):
        return _count_spec(spec_or_model, image_size, classes, include_top)
    if not hasattr(spec_or_model, "layers"):
        raise UserError(
            f"count() takes an ArchitectureSpec or a built Keras model, got {type(spec_or_model).__name__}; "
            "turn a name into a spec with architecture_spec(name)."
        )
    return Complexity.of(_layer_cost(layer) for layer in _leaves(spec_or_model))


# What a step keeps of each tensor until the way back, in copies of a convolution's output: normalization reads its
# input again; a relu knows its slope from its output, every other activation must see its input too.
_RELUS = ("relu", "relu6")
# On top come gradients on their way and what the allocator rounds up: fitted to steps of B0, Lite0 and ResNet-18 in
# float32 at 32 to 224 pixels and 8 to 32 pictures, TensorFlow on a CPU, which took 1.07 to 1.18 times the sum.
_KEPT = 1.15
# Bytes that the traced program, validation included, takes in this process: any, and for each weighted part. B0 took
# 0.5 to 0.6 GB, Lite0 0.4 and ResNet-18 0.25; 0.3 GB more of B0 when Keras normalizes, by a dozen operations a layer.
_PROGRAM, _PROGRAM_PART = 150e6, 5e6


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training takes at its peak, see `training_bytes`.

    Args:
        parameters: Int, weights and moving statistics, and their moving average where there is one.
        gradients: Int, of all parameters at once.
        optimizer: Int, its slots.
        activations: Int, tensors that the way back reads, of a whole batch.
        program: Int, the traced program, in the memory of the host; 0 where another device trains.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    program: int = 0

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations + self.program

    def __str__(self) -> str:
        weights = (self.parameters + self.gradients + self.optimizer) / 1e9
        program = f", program {self.program / 1e9:.1f}" if self.program else ""
        return (
            f"{self.total / 1e9:.1f} GB (activations {self.activations / 1e9:.1f}, "
            f"weights and optimizer {weights:.1f}{program})"
        )


def _kept_elements(part: ConvSpec | NormSpec, activation: str, out_size: int) -> tuple[int, int]:
    """Elements that stay until the way back for one picture: in float32 whatever the precision, and in its width."""
    elements = part.out_channels * out_size**2
    after = (1 if activation in _RELUS else 2) if part.act else int(part.norm)
    if isinstance(part, NormSpec):  # what it reads was counted as the output of the part before
        return 0, after * elements
    # Keras normalizes in float32: under mixed precision it is a copy of that width that stays.
    return (elements, after * elements) if part.norm else (0, (1 + after) * elements)


def _sized_parts(network: Network) -> Iterable[tuple[ConvSpec | NormSpec, int]]:
    """All that has weights but the classifier, each with the side of its output."""
    yield network.stem, network.stem.out_size
    for block in network.blocks:
        for part in block.weighted:
            yield part, part.out_size if isinstance(part, ConvSpec) else block.branch[0].in_size
    if network.head:
        yield network.head, network.blocks[-1].output.out_size


def _activation_bytes(spec: ArchitectureSpec, network: Network, width: int) -> int:
    """Bytes for one picture at so many for each element."""
    stem = network.stem
    full, kept = 2 * stem.in_channels * stem.in_size**2, 0  # the pixels, and the normalized ones
    for part, size in _sized_parts(network):
        in_float32, in_width = _kept_elements(part, spec.activation, size)
        full, kept = full + in_float32, kept + in_width
    for block in network.blocks:
        if isinstance(block, MBConvSpec) and block.se_reduce:  # channels times gates, which the projection reads
            kept += block.depthwise.out_channels * block.depthwise.out_size**2
    if spec.stem_pool:
        kept += stem.out_channels * stem.out_size**2 * 5 // 4  # padded, and a quarter of it pooled
    return int(_KEPT * (4 * full + width * kept))


def training_bytes(
    spec: ArchitectureSpec,
    batch_size: int,
    *,
    image_size: int | None = None,
    precision: str = "float32",
    optimizer_slots: int = 2,
    ema: bool = False,
    classes: int = 1000,
    device: str = "cpu",
) -> TrainingMemory:
    """Predicts the memory that training takes at its peak, without building the network.

    Args:
        spec: `ArchitectureSpec`.
        batch_size: Int, pictures a step.
        image_size: Int, side of the input in pixels; the spec's own unless given.
        precision: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`. Weights are float32 under any of them.
        optimizer_slots: Int, values that the optimizer keeps for each parameter: 2 of Adam, 1 of momentum.
        ema: Bool, whether a moving average of the weights is kept.
        classes: Int.
        device: `"cpu"`, where the traced program lies in the same memory, or `"gpu"`, where it does not.

    Returns:
        A `TrainingMemory`, in bytes.

    Raises:
        UserError: An unknown precision or device, or a batch of no picture.

    Example:

    >>> print(training_bytes(architecture_spec("b0"), 32))
    """
    one_of("precision", precision, ("float32", "mixed_float16", "mixed_bfloat16"))
    one_of("device", device, ("cpu", "gpu"))
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    cost = count(spec, image_size=image_size, classes=classes)
    network, width = expand(spec, image_size=image_size), 4 if precision == "float32" else 2
    parts = sum(1 for _ in _sized_parts(network)) + 1
    return TrainingMemory(
        parameters=4 * (cost.total_params + cost.params * ema),
        gradients=4 * cost.params,
        optimizer=4 * cost.params * optimizer_slots,
        activations=batch_size * _activation_bytes(spec, network, width),
        program=int(_PROGRAM + _PROGRAM_PART * parts) if device == "cpu" else 0,
    )
