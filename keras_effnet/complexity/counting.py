"""MACs, parameters and activations, counted from a spec or from a built Keras model.

Pure Python: a Keras model is read by the attributes of its layers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras_effnet.architecture.block_specs import ConvSpec, NormSpec
from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.architecture.pyramid import HeadSpec, expand_detector
from keras_effnet.architecture.specs import ArchitectureSpec, expand
from keras_effnet.complexity.cost import Complexity, Cost
from keras_effnet.complexity.layers import layer_costs
from keras_effnet.errors import UserError, whole_number


def part_cost(part: ConvSpec | NormSpec) -> Cost:
    """The cost of one convolution with the normalization behind it, or of a normalization alone, for one image."""
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


def _count_detector(spec: DetectorSpec, image_size: int | None, classes: int | None) -> Complexity:
    network = expand_detector(spec if classes is None else replace(spec, classes=classes), image_size=image_size)
    parts = [part_cost(network.backbone.stem)]
    parts += [Cost.total(block.name, map(part_cost, block.weighted)) for block in network.backbone.blocks]
    parts += [Cost.total(f"p{extra.level}", [part_cost(extra.project)]) for extra in network.extra if extra.project]
    for cell in network.cells:
        for node in cell:
            costs = [*map(part_cost, node.weighted)]
            if spec.fusion == "fast":
                costs += [_dense_cost("weight", 1, 1, bias=False)] * len(node.inputs)
            parts.append(Cost.total(node.name, costs))
    return Complexity.of([*parts, *(_head_cost(head) for head in network.heads)])


def _head_cost(head: HeadSpec) -> Cost:
    """Cost of a head on all levels: the convolutions have one set of weights, the normalizations one per level."""
    costs: list[Cost] = []
    for index, (level, steps) in enumerate(head.convolutions.items()):
        for part in (conv for pair in steps for conv in pair):
            cost = part_cost(part)
            costs.append(replace(cost, params=0) if index else cost)
        costs += [part_cost(head.norm(step, level)) for step in range(head.depth)]
    return Cost.total(f"{head.name}_head", costs)


def count(
    spec_or_model: ArchitectureSpec | DetectorSpec | Any,
    *,
    image_size: int | None = None,
    classes: int | None = None,
    include_top: bool = True,
) -> Complexity:
    """Count MACs, trainable parameters and activations per image.

    MACs are the multiply-adds of every convolution (depthwise and squeeze-and-excite included) and of the dense layer,
    plus one per output element where there is a bias. Batch normalization, activations and elementwise products are not
    counted: inference folds or fuses them.

    Args:
        spec_or_model: `ArchitectureSpec` or `DetectorSpec`, or a built Keras model of convolutions of any kind and
            Dense layers, nested models included. A layer that is called several times counts each time; layers without
            weight matrices count as elementwise.
        image_size: Int, side of the input in pixels, for a spec; the spec's by default.
        classes: Int, outputs of the classifier, for a spec; 1000 by default, for a detector its spec's.
        include_top: Bool, whether to count the classifier, for an `ArchitectureSpec`.

    Returns:
        `Complexity(macs, params, activations, blocks, total_params)`.

    Raises:
        UserError: Not a spec or model, a Keras model without a fixed input size, or one with a layer whose MACs are not
            known, such as attention; the message names the layer.

    Example:

    >>> count(architecture_spec("b0")).macs
    385825092
    """
    if classes is not None:
        classes = whole_number("classes", classes)
    if isinstance(spec_or_model, ArchitectureSpec):
        return _count_spec(spec_or_model, image_size, 1000 if classes is None else classes, include_top)
    if isinstance(spec_or_model, DetectorSpec):
        return _count_detector(spec_or_model, image_size, classes)
    if not hasattr(spec_or_model, "layers"):
        raise UserError(
            f"count() takes an ArchitectureSpec or a built Keras model, got {type(spec_or_model).__name__}; "
            "turn a name into a spec with architecture_spec(name)."
        )
    return Complexity.of(layer_costs(spec_or_model))
