"""Tensor names of effdet's EfficientDets, computed from the layer names of a detector. Pure Python.

effdet has the authors' weights as `tf_efficientdet_*`. Its backbones are timm's; BiFPN and heads are converted here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from keras_effnet.weights.stored_tensor import StoredTensor

BACKBONE = "backbone."
CLASS_PREDICTION = "class_predict_conv"
_MARKER = "box_net.predict.conv_pw.weight"

_KINDS = {"dwconv": "conv_dw", "conv": "conv_pw"}
_EXTRA = re.compile(r"p(\d+)_(conv|bn)")
_NODE = re.compile(r"cell(\d+)_p(\d+)_(td|bu)_(?:from_p(\d+)_(conv|bn)|(dwconv|conv|bn)|weight(\d+))")
_HEAD = re.compile(r"(class|box)_(?:head(\d+)_(?:p(\d+)_(bn)|(dwconv|conv))|predict_(dwconv|conv))")


def is_effdet(state: dict[str, StoredTensor]) -> bool:
    """Whether a state dict is one of effdet's detectors."""
    return _MARKER in state


def is_detector(model: Any) -> bool:
    """Whether a model is a detector of this package, by the name of its class prediction."""
    return any(layer.name == CLASS_PREDICTION for layer in model.layers)


def detector_prefixes(model: Any) -> dict[str, str]:
    """Layer name -> prefix in an effdet checkpoint, for BiFPN and heads; fusion weights end in `#` and their place."""
    names = [layer.name for layer in model.layers if layer.weights]
    levels = sorted({int(match[3]) for name in names if (match := _HEAD.fullmatch(name)) and match[3]})
    finest, coarsest = levels[0], levels[-1]
    readers: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
        (_EXTRA, lambda match: f"fpn.resample.{int(match[1]) - finest}.conv.{match[2]}"),
        (_NODE, partial(_node_prefix, finest, coarsest)),
        (_HEAD, partial(_head_prefix, finest)),
    )
    found = {}
    for name in names:
        for pattern, prefix in readers:
            if match := pattern.fullmatch(name):
                found[name] = prefix(match)
    return found


def _node_prefix(finest: int, coarsest: int, match: re.Match[str]) -> str:
    """effdet numbers nodes in order of computation, and the maps that a cell receives by level."""
    cell, level = int(match[1]) - 1, int(match[2])
    number = coarsest - 1 - level if match[3] == "td" else coarsest - finest + level - finest - 1
    node = f"fpn.cell.{cell}.fnode.{number}"
    if match[4]:
        return f"{node}.combine.resample.{int(match[4]) - finest}.conv.{match[5]}"
    if match[7]:
        return f"{node}.combine.edge_weights#{int(match[7]) - 1}"
    return f"{node}.after_combine.conv.{_KINDS.get(match[6], match[6])}"


def _head_prefix(finest: int, match: re.Match[str]) -> str:
    net = f"{match[1]}_net"
    if match[6]:
        return f"{net}.predict.{_KINDS[match[6]]}"
    step = int(match[2]) - 1
    if match[4]:
        return f"{net}.bn_rep.{step}.{int(match[3]) - finest}.bn"
    return f"{net}.conv_rep.{step}.{_KINDS[match[5]]}"


def take_fusion_weight(prefix: str, state: dict[str, StoredTensor]) -> list[StoredTensor]:
    """One weight of a node's vector, as the kernel of a dense layer; the vector remains in `state`."""
    name, _, place = prefix.partition("#")
    vector = state.get(name)
    if vector is None:
        return []
    if len(vector.shape) != 1 or int(place) >= vector.shape[0]:  # comparing the shapes reports it later
        return [vector]
    return [StoredTensor((1, 1), partial(_entry, vector, int(place)))]


def _entry(vector: StoredTensor, place: int) -> np.ndarray:
    return np.asarray(vector.read())[place].reshape(1, 1)
