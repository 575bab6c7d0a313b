"""What a built network consists of, read off its layer names: stem, blocks, top, classifier.

A model that comes back from a `.keras` file brings no spec along, but its names do. Freezing, feature levels, heat
maps and weights from elsewhere all look at a model through here. No framework: layers are read by their attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import UserError

_BLOCK = re.compile(r"block(\d+)([a-z]+)_(.+)")
_STEM, _TOP = ("stem_",), ("top_conv", "top_bn", "top_activation")
_CLASSIFIER = ("avg_pool", "max_pool", "top_dropout", "predictions")


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a network.

    Args:
        name: `"stem"`, `"block1a"` and so on, `"top"` or `"classifier"`.
        layers: Tuple of its Keras layers, input side first.
        stride: Int, how many pixels of the network's input one pixel of the part's output spans.
        stage: Int, number of the block's stage from 1; 0 for what is no block.
        index: Int, number of the block within its stage from 0.
    """

    name: str
    layers: tuple[Any, ...]
    stride: int
    stage: int = 0
    index: int = 0

    @property
    def output(self):
        """The symbolic output, from which further functional models start."""
        return self.layers[-1].output


def _number(letters: str) -> int:
    """a, b, ..., z, aa, ab, ... -> 0, 1, 2, ...; the inverse of how `architecture` names blocks."""
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


def _stride(layers) -> int:
    """Product of the strides along the main branch."""
    stride = 1
    for layer in layers:
        if "_shortcut_" not in layer.name:
            stride *= getattr(layer, "strides", (1,))[0]
    return stride


def parts(model) -> tuple[Part, ...]:
    """The parts of a network in order, input side first.

    Args:
        model: A model of this package, or one with the layer names of `keras.applications`' EfficientNet.

    Raises:
        UserError: The model has no layers with such names.
    """
    groups: dict[str, list] = {}
    for layer in model.layers:
        if name := _part_name(layer.name):
            groups.setdefault(name, []).append(layer)
    if "stem" not in groups or not any(name.startswith("block") for name in groups):
        raise UserError(f"{model.name} is no network of this package: it has no stem and blocks by name.")
    found, stride = [], 1
    for name, layers in groups.items():
        stride *= _stride(layers)
        match = re.fullmatch(r"block(\d+)([a-z]+)", name)
        place = (int(match[1]), _number(match[2])) if match else (0, 0)
        found.append(Part(name, tuple(layers), stride, *place))
    return tuple(found)


def blocks(model) -> tuple[Part, ...]:
    """The blocks of a network in order."""
    return tuple(part for part in parts(model) if part.stage)


def computing_layers(model) -> Iterator[Any]:
    """The layers that compute, those of nested models included, input side first."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from computing_layers(layer)
        elif type(layer).__name__ != "InputLayer":  # it follows the global policy, whatever the file says
            yield layer
