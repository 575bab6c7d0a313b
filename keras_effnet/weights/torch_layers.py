"""Tensors of torch checkpoints by our layers, refused if the network has another padding or epsilon. Pure Python."""

from __future__ import annotations

import logging
from collections.abc import Iterable
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
from keras_effnet.weights.torch_names import EFFDET, LAYOUTS, TIMM, TorchLayout

logger = logging.getLogger(__name__)

HEAD = "predictions"
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
