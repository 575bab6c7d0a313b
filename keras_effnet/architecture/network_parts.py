"""Stem, blocks, top and classifier of a built model, found by its layer names.

A model reloaded from a `.keras` file has no spec, but it has its layer names. Freezing, feature maps, Grad-CAM and
weight conversion find their layers here. Pure Python: layers are read by their attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import UserError, check_model

_BLOCK = re.compile(r"block(\d+)([a-z]+)_(.+)")
_STEM, _TOP = ("stem_",), ("top_conv", "top_bn", "top_activation")
_CLASSIFIER = ("avg_pool", "max_pool", "top_dropout", "predictions")
_RENAMED = re.compile(r"(.*)stem_conv(.*)")


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a network.

    Args:
        name: `"stem"`, `"block1a"` and so on, `"top"` or `"classifier"`.
        layers: Tuple of its Keras layers, input side first.
        stride: Int, input pixels per pixel of the part's output.
        stage: Int, number of the block's stage, from 1; 0 if the part is not a block.
        index: Int, number of the block within its stage, from 0.
        tensor: Symbolic output in the model of interest, if its layers were first called in another one.
    """

    name: str
    layers: tuple[Any, ...]
    stride: int
    stage: int = 0
    index: int = 0
    tensor: Any = None

    @property
    def output(self) -> Any:
        """Symbolic output of the last layer, to build functional models on."""
        return self.layers[-1].output if self.tensor is None else self.tensor


def _number(letters: str) -> int:
    """a, b, ..., z, aa, ab, ... -> 0, 1, 2, ...; the inverse of the letters in block names."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def _part_name(layer_name: str) -> str | None:
    if match := _BLOCK.match(layer_name):
        return f"block{match[1]}{match[2]}"
    if layer_name.startswith(_STEM):
        return "stem"
    if layer_name in _TOP:
        return "top"
    return "classifier" if layer_name in _CLASSIFIER else None


def _affixes(model: Any) -> tuple[str, str]:
    """What was put before and behind all layer names, as for two backbones in one model; told by the stem's."""
    found = (match for layer in model.layers if (match := _RENAMED.fullmatch(layer.name)))
    prefix, suffix = next(((match[1], match[2]) for match in found if not match[2].startswith("_pad")), ("", ""))
    return prefix, suffix


def _stride(layers: Iterable[Any]) -> int:
    """Product of the strides along the main branch."""
    stride = 1
    for layer in layers:
        if "_shortcut_" not in layer.name:
            stride *= getattr(layer, "strides", (1,))[0]
    return stride


def parts(model: Any) -> tuple[Part, ...]:
    """Split a model into its parts, input side first.

    Args:
        model: A model of this package, or one with the layer names of `keras.applications`' EfficientNet.

    Raises:
        UserError: The model has no layers with such names.
    """
    check_model(model)
    groups: dict[str, list[Any]] = {}
    prefix, suffix = _affixes(model)
    for layer in model.layers:
        if name := _part_name(layer.name.removeprefix(prefix).removesuffix(suffix)):
            groups.setdefault(name, []).append(layer)
    if "stem" not in groups or not any(name.startswith("block") for name in groups):
        raise UserError(f"{model.name} is not a network of this package: it has no layers named stem_ and block1a_.")
    found, stride = [], 1
    for name, layers in groups.items():
        stride *= _stride(layers)
        match = re.fullmatch(r"block(\d+)([a-z]+)", name)
        place = (int(match[1]), _number(match[2])) if match else (0, 0)
        found.append(Part(name, tuple(layers), stride, *place))
    return tuple(found)


def blocks(model: Any) -> tuple[Part, ...]:
    """The blocks of a model, input side first."""
    return tuple(part for part in parts(model) if part.stage)


def computing_layers(model: Any) -> Iterator[Any]:
    """The layers of a model without input layers, input side first; nested models are replaced by their layers."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from computing_layers(layer)
        elif type(layer).__name__ != "InputLayer":  # its dtype is the global policy's, whatever the file says
            yield layer
