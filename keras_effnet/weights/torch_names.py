"""Tensor names of torch EfficientNets, as tables from our layers to theirs. Pure Python.

Three layouts: those of torchvision, timm and efficientnet_pytorch, which the Lite packages use. Only the first two have
EfficientNetV2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_effnet.architecture.network_parts import Part, parts
from keras_effnet.errors import UserError
from keras_effnet.weights.effdet_names import (
    BACKBONE,
    detector_prefixes,
    is_detector,
    is_effdet,
    take_fusion_weight,
)
from keras_effnet.weights.stored_tensor import StoredTensor, printable

logger = logging.getLogger(__name__)

HEAD = "predictions"
TENSORFLOW, TORCH = ("same", 1e-3), ("symmetric", 1e-5)  # padding and batch normalization epsilon


@dataclass(frozen=True)
class TorchLayout:
    """Tensor names of one library.

    Args:
        library: String, for messages.
        marker: Name of a tensor that only this layout has.
        outer: Our layer name -> their prefix, outside of blocks.
        expanded: Part of our layer name after `block2b_` -> their prefix, in blocks with expansion.
        plain: The same for blocks without expansion.
        fused: The same for Fused-MBConv with expansion.
        fused_plain: The same for Fused-MBConv without expansion, which is a single convolution.
        geometries: Function from the number of blocks and the file's name to the pairs of padding and batch
            normalization epsilon that the weights may have been trained with.

    Prefixes may contain `{block}` (number of the block from 0), `{stage}` (from 1), `{stage0}` (from 0), `{index}` (of
    the block in its stage, from 0) and `{last}` (number of stages + 1).
    """

    library: str
    marker: str
    outer: dict[str, str]
    expanded: dict[str, str]
    plain: dict[str, str]
    geometries: Callable[[int, str], tuple[tuple[str, float], ...]]
    fused: dict[str, str] = field(default_factory=dict)
    fused_plain: dict[str, str] = field(default_factory=dict)


def _numbered(template: str, **operations: str) -> dict[str, str]:
    return {part: template.format(operation) for part, operation in operations.items()}


def _timm_geometries(blocks: int, file_name: str) -> tuple[tuple[str, float], ...]:
    """timm has networks trained in TensorFlow (`tf_efficientnet_*`) and in torch, distinguished only by name."""
    if file_name.startswith("tf_efficientnet"):
        return (TENSORFLOW,)
    return (TORCH,) if file_name.startswith("efficientnet") else (TENSORFLOW, TORCH)


_PYTORCH_BLOCK = _numbered(
    "_blocks.{{block}}._{}",
    expand_conv="expand_conv",
    expand_bn="bn0",
    dwconv="depthwise_conv",
    bn="bn1",
    se_reduce="se_reduce",
    se_expand="se_expand",
    project_conv="project_conv",
    project_bn="bn2",
)
EFFICIENTNET_PYTORCH = TorchLayout(
    library="efficientnet_pytorch",
    marker="_conv_stem.weight",
    outer={
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "top_conv": "_conv_head",
        "top_bn": "_bn1",
        "predictions": "_fc",
    },
    expanded=_PYTORCH_BLOCK,
    plain=_PYTORCH_BLOCK,
    geometries=lambda blocks, file_name: (TENSORFLOW,),
)

TORCHVISION = TorchLayout(
    library="torchvision",
    marker="features.0.0.weight",
    outer={
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "top_conv": "features.{last}.0",
        "top_bn": "features.{last}.1",
        "predictions": "classifier.1",
    },
    expanded=_numbered(
        "features.{{stage}}.{{index}}.block.{}",
        expand_conv="0.0",
        expand_bn="0.1",
        dwconv="1.0",
        bn="1.1",
        se_reduce="2.fc1",
        se_expand="2.fc2",
        project_conv="3.0",
        project_bn="3.1",
    ),
    plain=_numbered(
        "features.{{stage}}.{{index}}.block.{}",
        dwconv="0.0",
        bn="0.1",
        se_reduce="1.fc1",
        se_expand="1.fc2",
        project_conv="2.0",
        project_bn="2.1",
    ),
    # torchvision builds B5-B7 and V2, which have at least 39 blocks, with TensorFlow's epsilon but torch's padding.
    geometries=lambda blocks, file_name: (TORCH if blocks < 39 else ("symmetric", 1e-3),),
    fused=_numbered(
        "features.{{stage}}.{{index}}.block.{}",
        expand_conv="0.0",
        expand_bn="0.1",
        project_conv="1.0",
        project_bn="1.1",
    ),
    fused_plain=_numbered("features.{{stage}}.{{index}}.block.{}", project_conv="0.0", project_bn="0.1"),
)

TIMM = TorchLayout(
    library="timm",
    marker="conv_stem.weight",
    outer={
        "stem_conv": "conv_stem",
        "stem_bn": "bn1",
        "top_conv": "conv_head",
        "top_bn": "bn2",
        "predictions": "classifier",
    },
    expanded=_numbered(
        "blocks.{{stage0}}.{{index}}.{}",
        expand_conv="conv_pw",
        expand_bn="bn1",
        dwconv="conv_dw",
        bn="bn2",
        se_reduce="se.conv_reduce",
        se_expand="se.conv_expand",
        project_conv="conv_pwl",
        project_bn="bn3",
    ),
    plain=_numbered(
        "blocks.{{stage0}}.{{index}}.{}",
        dwconv="conv_dw",
        bn="bn1",
        se_reduce="se.conv_reduce",
        se_expand="se.conv_expand",
        project_conv="conv_pw",
        project_bn="bn2",
    ),
    geometries=_timm_geometries,
    fused=_numbered(
        "blocks.{{stage0}}.{{index}}.{}",
        expand_conv="conv_exp",
        expand_bn="bn1",
        project_conv="conv_pwl",
        project_bn="bn2",
    ),
    fused_plain=_numbered("blocks.{{stage0}}.{{index}}.{}", project_conv="conv", project_bn="bn1"),
)

# effdet's detectors trained in TensorFlow; those it trained itself have other convolutions.
EFFDET = TorchLayout("effdet", "", {}, {}, {}, geometries=lambda blocks, file_name: (TENSORFLOW,))
LAYOUTS = (EFFICIENTNET_PYTORCH, TORCHVISION, TIMM)

# Axes of torch's tensors in Keras' order, by the kind of layer.
_KERNEL_AXES = {"Conv2D": (2, 3, 1, 0), "DepthwiseConv2D": (2, 3, 0, 1), "Dense": (1, 0)}
_NORM = ("weight", "bias", "running_mean", "running_var")
_WRAPPERS = ("module.", "_orig_mod.", "module.", "model.")  # of DataParallel, torch.compile and effdet's training


def _prefixes(model: Any, layout: TorchLayout) -> dict[str, str]:
    """Layer name -> prefix in the checkpoint, for each layer with weights that the layout has."""
    found = parts(model)
    last = max(part.stage for part in found) + 1
    prefixes, number = {}, 0
    for part in found:
        names = {layer.name: layer.name.removeprefix(f"{part.name}_") for layer in part.layers if layer.weights}
        table = _table(part, names.values(), layout)
        place = {"block": number, "stage": part.stage, "stage0": part.stage - 1, "index": part.index, "last": last}
        for name, short in names.items():
            key = short.replace("dwconv2", "dwconv") if part.stage else name
            if key in table:
                prefixes[name] = table[key].format(**place)
        number += bool(part.stage)
    return prefixes


def _table(part: Part, names: Iterable[str], layout: TorchLayout) -> dict[str, str]:
    if not part.stage:
        return layout.outer
    if {"dwconv", "dwconv2"}.isdisjoint(names):
        return layout.fused if "expand_conv" in names else layout.fused_plain
    return layout.expanded if "expand_conv" in names else layout.plain


def _take(layer: Any, prefix: str, state: dict[str, StoredTensor]) -> list[StoredTensor]:
    """Remove a layer's tensors from `state` and return them in Keras' order and axes."""
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        state.pop(f"{prefix}.num_batches_tracked", None)
        return [state.pop(f"{prefix}.{name}") for name in _NORM if f"{prefix}.{name}" in state]
    kernel, bias = state.pop(f"{prefix}.weight", None), state.pop(f"{prefix}.bias", None)
    kernels = [kernel.transpose(_KERNEL_AXES[kind])] if kernel else []
    return kernels + ([bias] if bias else [])


def geometry(model: Any) -> tuple[set[str], set[float]]:
    """Paddings of the strided convolutions and epsilons of the batch normalizations in a model."""
    padded = {layer.name for layer in model.layers if type(layer).__name__ == "ZeroPadding2D"}
    strided = [layer for layer in model.layers if "Conv2D" in type(layer).__name__ and layer.strides[0] > 1]
    paddings = {
        "symmetric" if f"{layer.name}_pad" in padded else layer.padding for layer in strided if layer.kernel_size[0] > 1
    }
    return paddings, {layer.epsilon for layer in model.layers if type(layer).__name__ == "BatchNormalization"}


def _check_geometry(model: Any, layout: TorchLayout, path: Path) -> None:
    """Refuse a network whose shapes fit but whose padding or epsilon does not.

    Raises:
        UserError: The message has the arguments to build it with.
    """
    blocks = sum(part.stage > 0 for part in parts(model))
    allowed = layout.geometries(blocks, path.name)
    paddings, epsilons = geometry(model)
    if not any(paddings <= {padding} and epsilons <= {epsilon} for padding, epsilon in allowed):
        wanted = " or ".join(f"padding={padding!r}, bn_epsilon={epsilon:g}" for padding, epsilon in allowed)
        has = f"padding {'/'.join(sorted(paddings))}, bn_epsilon {'/'.join(f'{e:g}' for e in sorted(epsilons))}"
        raise UserError(
            f"{path.name} has {layout.library}'s layout, which needs {wanted}; this network has {has}. "
            "Build it with those arguments: with others the same weights compute different features."
        )
    if len(allowed) > 1:
        logger.warning(
            "%s has timm's layout, but its name does not show whether it is a tf_efficientnet_* (padding='same', "
            "bn_epsilon=1e-3) or an efficientnet_* (padding='symmetric', bn_epsilon=1e-5). The network has padding %s "
            "and bn_epsilon %g: check that this is right.",
            path.name,
            *paddings,
            *epsilons,
        )


def _detector_layers(model: Any, state: dict[str, StoredTensor], path: Path) -> dict[str, list[StoredTensor]]:
    """The same for a detector in effdet's layout: its backbone has timm's."""
    backbone = {name.removeprefix(BACKBONE): t for name, t in state.items() if name.startswith(BACKBONE)}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(BACKBONE)}
    _check_geometry(model, EFFDET, path)
    layers = {name: _take(model.get_layer(name), prefix, backbone) for name, prefix in _prefixes(model, TIMM).items()}
    weighted = set()
    for name, prefix in detector_prefixes(model).items():
        if "#" in prefix:
            layers[name] = take_fusion_weight(prefix, state)
            weighted.add(prefix.partition("#")[0])
        else:
            layers[name] = _take(model.get_layer(name), prefix, state)
    left = {name: t for name, t in state.items() if name not in weighted}
    left |= {f"{BACKBONE}{name}": tensor for name, tensor in backbone.items()}
    return {name: tensors for name, tensors in layers.items() if tensors} | {name: [t] for name, t in left.items()}


def to_layers(model: Any, state: dict[str, StoredTensor], path: Path) -> dict[str, list[StoredTensor]]:
    """Convert a torch state dict to layer name -> tensors in Keras' order and axes.

    Args:
        model: The network to load them into.
        state: Parameter name -> `StoredTensor`.
        path: Path of the file, for messages.

    Returns:
        A dict from layer name to tensors, followed by tensors that belong to no layer under their own names.

    Raises:
        UserError: The layout is none of `LAYOUTS`, or the network's padding or epsilon is not that of the weights.
    """
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    if is_effdet(state):
        if not is_detector(model):
            raise UserError(f"{path.name} is a detector of effdet, and {model.name} is none: build an EfficientDet.")
        return _detector_layers(model, state, path)
    layout = next((layout for layout in LAYOUTS if layout.marker in state), None)
    if layout is None:
        raise UserError(
            f"{path.name} is not an EfficientNet in the layout of {', '.join(layout.library for layout in LAYOUTS)}: "
            f"{f'its first tensor is {printable(next(iter(state)))}' if state else 'it has no tensors'}."
        )
    _check_geometry(model, layout, path)
    layers = {name: _take(model.get_layer(name), prefix, state) for name, prefix in _prefixes(model, layout).items()}
    if HEAD not in layers:  # the file has a classifier but the model does not: `load_weights` decides
        prefix = layout.outer[HEAD]
        layers[HEAD] = [state.pop(name) for name in (f"{prefix}.weight", f"{prefix}.bias") if name in state]
    return {name: tensors for name, tensors in layers.items() if tensors} | {name: [t] for name, t in state.items()}
