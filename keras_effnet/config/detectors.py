"""The detector that training options describe. Pure Python."""

from __future__ import annotations

from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.detectors import PREFIX, DetectorSpec, detector_spec
from keras_effnet.errors import UserError

DETECTOR_OPTIONS = ("backbone", "bifpn_width", "bifpn_cells", "head_depth", "anchor_scale", "anchor_aspects")
_FROM_RULE = f"{PREFIX}d0"


def names_detector(model: str) -> bool:
    """Whether the name of a network is that of a detector."""
    return model.lower().startswith(PREFIX)


def aspects_of(text: str) -> tuple[tuple[float, float], ...]:
    """Factors of width and height of anchors from text.

    Args:
        text: String such as `"1x1,1.4x0.7,0.7x1.4"`.

    Raises:
        UserError: The text is something else.
    """
    try:
        pairs = tuple(tuple(map(float, pair.split("x"))) for pair in text.replace(" ", "").split(","))
    except ValueError:
        pairs = ()
    if not pairs or any(len(pair) != 2 or not 0.01 <= min(pair) <= max(pair) <= 100 for pair in pairs):
        raise UserError(f"anchor_aspects must be factors of width and height such as 1x1,1.4x0.7, got {text!r}.")
    return pairs  # type: ignore[return-value]


def aspects_text(aspects: tuple[tuple[float, float], ...]) -> str:
    """The text that `aspects_of` reads."""
    return ",".join(f"{width:g}x{height:g}" for width, height in aspects)


def check_detector_options(config: Any) -> None:
    """Refuse options of detectors for other networks, and malformed ones.

    Raises:
        UserError: There is one; the message names it.
    """
    if config.anchor_aspects is not None:
        aspects_of(config.anchor_aspects)
    given = [name for name in DETECTOR_OPTIONS if getattr(config, name) is not None]
    if given and not names_detector(config.model):
        raise UserError(
            f"{given[0]} is an option of detectors, and {config.model} is none: choose one, such as det-lite0."
        )


def detector_of(config: Any, **backbone_changes: Any) -> DetectorSpec | None:
    """The detector that training options describe; None if they describe another network.

    Without `anchor_scale` the anchors are the table's. The number of classes is the table's.

    Args:
        config: `TrainConfig`.
        **backbone_changes: Fields of the backbone.

    Raises:
        UserError: No detector has this name, or an option does not fit it.
    """
    if not names_detector(config.model):
        return None
    if config.phi is not None and config.model.lower() != _FROM_RULE:
        raise UserError(
            f"phi makes a detector by the paper's rule, from {_FROM_RULE}; with {config.model} leave it out, or use "
            f"model {_FROM_RULE}."
        )
    spec = detector_spec(config.model) if config.phi is None else detector_spec(phi=config.phi)
    backbone = architecture_spec(
        config.backbone or spec.backbone,
        depth=config.depth,
        width=config.width,
        stem_stride=config.stem_stride,
        bn_momentum=config.bn_momentum,
        **backbone_changes,
    )
    changes: dict[str, Any] = {
        "image_size": config.image_size,
        "width": config.bifpn_width,
        "cells": config.bifpn_cells,
        "head_depth": config.head_depth,
        "anchor_scale": config.anchor_scale,
        "aspects": config.anchor_aspects and aspects_of(config.anchor_aspects),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return detector_spec(spec, backbone=backbone, bn_momentum=config.bn_momentum, **given)
