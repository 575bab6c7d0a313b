"""EfficientDet as data: backbone, BiFPN and heads, the published table, and the paper's scaling rule. Pure Python.

Source: Tan, Pang & Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020; the table is that of the
authors' release, which has Lite, D7 and D7x as trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.field_types import check_types
from keras_effnet.architecture.scaling import PUBLISHED
from keras_effnet.architecture.specs import LARGEST_IMAGE, ArchitectureSpec, expand
from keras_effnet.errors import UserError, one_of, real_number

COCO_CLASSES = 90  # identifiers of COCO up to the largest; 80 of them are used
ASPECTS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
FUSIONS = ("fast", "sum")
_COARSEST = 12  # level of a feature map with one cell per 4096 pixels


@dataclass(frozen=True)
class DetectorSpec:
    """An EfficientDet as data.

    Args:
        name: String, name of the network and of the Keras model.
        backbone: `ArchitectureSpec` of any network; its head, classifier and image size are not used.
        image_size: Int, side of the default input in pixels.
        width: Int, channels of the BiFPN and of the heads.
        cells: Int, repeats of the BiFPN cell.
        head_depth: Int, separable convolutions of each head before its prediction.
        levels: Finest and coarsest level of the pyramid: level l has one cell per 2^l pixels.
        fusion: `"fast"` weights the inputs of a node by relu(w) / (sum + 1e-4); `"sum"` adds them.
        anchor_scale: Float, side of the smallest anchor of a level in strides of the level.
        aspects: Tuple of pairs, factors of width and height of the anchors. They belong to the weights: the table's are
            those of effdet's `tf_` weights; automl computes (sqrt(2), 1 / sqrt(2)).
        octaves: Int, anchor sizes per level: 2^(i / octaves) times the smallest one.
        classes: Int, outputs of the class head per anchor, one sigmoid each.
        bn_momentum, bn_epsilon: Floats, for the batch normalizations of BiFPN and heads.
    """

    name: str
    backbone: ArchitectureSpec
    image_size: int
    width: int
    cells: int
    head_depth: int
    levels: tuple[int, int] = (3, 7)
    fusion: str = "fast"
    anchor_scale: float = 4.0
    aspects: tuple[tuple[float, float], ...] = ASPECTS
    octaves: int = 3
    classes: int = COCO_CLASSES
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3

    def __post_init__(self) -> None:
        check_types(self)
        if not isinstance(self.backbone, ArchitectureSpec):
            raise UserError(
                f"backbone must be an ArchitectureSpec, got {self.backbone!r}: use architecture_spec(name)."
            )
        for name in ("width", "cells", "head_depth", "octaves", "classes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 32 <= self.image_size <= LARGEST_IMAGE:
            raise UserError(f"image_size must lie in 32..{LARGEST_IMAGE} pixels, got {self.image_size}.")
        if self.anchor_scale <= 0:
            raise UserError(f"anchor_scale must be positive, got {self.anchor_scale}.")
        one_of("fusion", self.fusion, FUSIONS)
        self._check_aspects()
        self._check_levels()

    def _check_aspects(self) -> None:
        pairs = [pair for pair in self.aspects if isinstance(pair, tuple) and len(pair) == 2]
        fits = pairs and len(pairs) == len(self.aspects)
        if not fits or min(real_number("An aspect", factor) for pair in pairs for factor in pair) <= 0:
            raise UserError(
                f"aspects must be pairs of positive factors of width and height such as ((1, 1), (1.4, 0.7)), got "
                f"{self.aspects!r}."
            )

    def _check_levels(self) -> None:
        numbers = isinstance(self.levels, tuple) and len(self.levels) == 2 and all(type(n) is int for n in self.levels)
        if not numbers or not self.levels[0] < self.levels[1] <= _COARSEST:
            raise UserError(
                f"levels must be the finest and the coarsest level of the pyramid, such as (3, 7), got {self.levels!r}."
            )
        if self.levels[0] not in self.backbone_levels:
            known = ", ".join(f"P{level}" for level in self.backbone_levels)
            raise UserError(
                f"levels begin at {self.levels[0]}, but the feature maps of {self.backbone.name} are {known}."
            )

    @cached_property
    def backbone_levels(self) -> dict[int, int]:
        """Level -> index of the last block of the backbone at that level."""
        network = expand(self.backbone)
        level = _doublings(network.stem.stride) + self.backbone.stem_pool
        found = {}
        for index, block in enumerate(network.blocks):
            level += _doublings(math.prod(part.stride for part in _main_branch(block)))
            found[level] = index
        return found

    @property
    def activation(self) -> str:
        """Activation of BiFPN and heads: the backbone's."""
        return self.backbone.activation

    @property
    def anchors_per_cell(self) -> int:
        """Anchors at every position of a feature map."""
        return self.octaves * len(self.aspects)

    @property
    def all_levels(self) -> range:
        """Levels of the pyramid, fine to coarse."""
        return range(self.levels[0], self.levels[1] + 1)


def _main_branch(block: Any) -> tuple[Any, ...]:
    """Convolutions between input and output of a block, without gates and shortcut."""
    aside = (getattr(block, "shortcut", None), getattr(block, "se_reduce", None), getattr(block, "se_expand", None))
    return tuple(part for part in block.weighted if part not in aside and hasattr(part, "stride"))


def _doublings(stride: int) -> int:
    level = stride.bit_length() - 1
    if stride != 1 << level:
        raise UserError(
            f"A feature pyramid needs strides that are powers of two; the backbone has a stride of {stride}."
        )
    return level


#         backbone  size  width cells head  others
_TABLE: dict[str, tuple[str, int, int, int, int, dict[str, Any]]] = {
    "d0": ("b0", 512, 64, 3, 3, {}),
    "d1": ("b1", 640, 88, 4, 3, {}),
    "d2": ("b2", 768, 112, 5, 3, {}),
    "d3": ("b3", 896, 160, 6, 4, {}),
    "d4": ("b4", 1024, 224, 7, 4, {}),
    "d5": ("b5", 1280, 288, 7, 4, {}),
    "d6": ("b6", 1280, 384, 8, 5, {"fusion": "sum"}),
    "d7": ("b6", 1536, 384, 8, 5, {"fusion": "sum", "anchor_scale": 5.0}),
    "d7x": ("b7", 1536, 384, 8, 5, {"fusion": "sum", "levels": (3, 8)}),
    "lite0": ("lite0", 320, 64, 3, 3, {"fusion": "sum", "anchor_scale": 3.0}),
    "lite1": ("lite1", 384, 88, 4, 3, {"fusion": "sum", "anchor_scale": 3.0}),
    "lite2": ("lite2", 448, 112, 5, 3, {"fusion": "sum", "anchor_scale": 3.0}),
    "lite3": ("lite3", 512, 160, 6, 4, {"fusion": "sum"}),
    "lite3x": ("lite3", 640, 200, 6, 4, {"fusion": "sum", "anchor_scale": 3.0}),
    "lite4": ("lite4", 640, 224, 7, 4, {"fusion": "sum"}),
}

PREFIX = "det-"
DETECTORS: dict[str, DetectorSpec] = {
    f"{PREFIX}{name}": DetectorSpec(
        f"efficientdet-{name}", architecture_spec(backbone), size, width, cells, depth, **others
    )
    for name, (backbone, size, width, cells, depth, others) in _TABLE.items()
}

# AP on COCO val2017 in percent, as the authors' release states it: float32.
PUBLISHED_AP: dict[str, float] = {
    f"{PREFIX}{name}": value
    for name, value in {
        **{"d0": 34.3, "d1": 40.2, "d2": 43.5, "d3": 46.8, "d4": 49.3, "d5": 51.2, "d6": 52.1, "d7": 53.4, "d7x": 54.4},
        **{"lite0": 26.41, "lite1": 31.50, "lite2": 35.06, "lite3": 38.77, "lite3x": 42.64, "lite4": 43.18},
    }.items()
}


@dataclass(frozen=True)
class DetectorScaling:
    """What the paper's rule gives for one compound coefficient, see `detector_scaling`."""

    image_size: int
    width: int
    cells: int
    head_depth: int


def detector_scaling(phi: float) -> DetectorScaling:
    """Size, width and depths of a detector by the paper's rule.

    Args:
        phi: Float, 0 is D0; at most about 28, and not below -3: a detector has at least one cell.

    Returns:
        A `DetectorScaling`: 512 + 128 phi pixels rounded to a multiple of 32, 64 * 1.35^phi channels rounded to a
        multiple of 8, 3 + phi cells and 3 + phi / 3 convolutions of a head, both rounded down.

    Raises:
        UserError: No detector has such a phi.

    Example:

    >>> detector_scaling(5)
    DetectorScaling(image_size=1152, width=288, cells=8, head_depth=4)

    Source: EfficientDet (CVPR 2020), equations 1 to 3.
    """
    phi = float(real_number("phi", phi))
    if not -3 <= phi <= (LARGEST_IMAGE - 512) / 128:
        raise UserError(
            f"phi of a detector must lie in -3..{(LARGEST_IMAGE - 512) // 128}, got {phi:g}. D7 is about 7."
        )
    return DetectorScaling(
        image_size=int((512 + 128 * phi) / 32 + 0.5) * 32,
        width=int(64 * 1.35**phi / 8 + 0.5) * 8,
        cells=max(1, math.floor(3 + phi)),
        head_depth=max(1, math.floor(3 + phi / 3)),
    )


def _backbone(phi: float) -> ArchitectureSpec:
    """B0 to B7 at whole coefficients; between them B0 at the compound coefficient between theirs."""
    rows = [PUBLISHED[f"b{number}"].phi for number in range(8)]
    if phi in range(8):
        return architecture_spec(f"b{int(phi)}")
    if phi < 0 or phi > 7:
        outside = rows[0] + phi / 2 if phi < 0 else rows[7] + phi - 7
        return architecture_spec("b0", phi=outside)
    below = int(phi)
    return architecture_spec("b0", phi=rows[below] + (phi - below) * (rows[below + 1] - rows[below]))


def detector_spec(
    name: str | DetectorSpec = "det-d0",
    *,
    phi: float | None = None,
    backbone: str | ArchitectureSpec | None = None,
    **changes: Any,
) -> DetectorSpec:
    """Look up a published detector, or compute one by the paper's rule, and change what you like.

    Args:
        name: `"det-d0"` to `"det-d7"`, `"det-d7x"`, `"det-lite0"` to `"det-lite4"`, `"det-lite3x"`, or a spec.
        phi: Float, instead of `name`: `detector_scaling` on the EfficientNet of the same coefficient, with the other
            fields of D0. Published detectors differ from it, see `explain`.
        backbone: Another backbone: a name of `list_models()`, a `.yaml` file, or an `ArchitectureSpec`.
        **changes: Any other field of `DetectorSpec`, such as `image_size=256` or `anchor_scale=2.0`.

    Returns:
        A `DetectorSpec`.

    Raises:
        UserError: Unknown name, unknown field, or an invalid value.

    Example:

    >>> detector_spec("det-lite0", backbone="resnet18", classes=3).width
    64
    """
    for key in changes:
        one_of("detector field", key, DetectorSpec.__dataclass_fields__)
    if backbone is not None:
        changes["backbone"] = architecture_spec(backbone)
    if phi is not None:
        scaling = detector_scaling(phi)
        spec = replace(
            DETECTORS["det-d0"], name=f"efficientdet-phi{phi:g}", backbone=_backbone(float(phi)), **vars(scaling)
        )
    else:
        spec = name if isinstance(name, DetectorSpec) else _named(name)
    return replace(spec, **changes)


def _named(name: str) -> DetectorSpec:
    return DETECTORS[one_of("detector", published_name(name), DETECTORS)]


def published_name(name: str) -> str:
    """Full name of a detector given with or without its prefix: `"D5"` is `"det-d5"`."""
    lower = str(name).lower()
    return lower if lower.startswith(PREFIX) else f"{PREFIX}{lower}"
