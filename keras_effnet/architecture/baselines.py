"""Named baselines as stage tables, and `architecture_spec`, which scales any of them. Pure Python."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from keras_effnet.architecture.efficientnet_v2 import V2_B0, V2_L, V2_M, V2_S, V2_XL
from keras_effnet.architecture.scaling import PUBLISHED, CompoundScaling
from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec
from keras_effnet.architecture.yaml_files import SUFFIXES, read_spec
from keras_effnet.errors import UserError, one_of

LITE_MEAN, LITE_STD = 127.0, 128.0

_se_mbconv = partial(StageSpec, se_ratio=0.25)
_basic = partial(StageSpec, 3, block="basic", expand=1)
_bottleneck = partial(StageSpec, 3, block="bottleneck", expand=1, inner=0.25)
_preact = partial(StageSpec, 3, block="preact", expand=1)

#              kernel stride expand filters repeats
EFFICIENTNET_B0 = ArchitectureSpec(
    name="efficientnet",
    stem=32,
    stages=(
        _se_mbconv(3, 1, 1, 16, 1),
        _se_mbconv(3, 2, 6, 24, 2),
        _se_mbconv(5, 2, 6, 40, 2),
        _se_mbconv(3, 2, 6, 80, 3),
        _se_mbconv(5, 1, 6, 112, 3),
        _se_mbconv(5, 2, 6, 192, 4),
        _se_mbconv(3, 1, 6, 320, 1),
    ),
    head=1280,
)

# B0 for quantization: no squeeze-and-excite, ReLU6, and no scaling of the stem, the head and the outer stages.
EFFICIENTNET_LITE0 = replace(
    EFFICIENTNET_B0,
    name="efficientnet-lite",
    stages=tuple(
        replace(stage, se_ratio=0.0, scale_depth=stage not in (EFFICIENTNET_B0.stages[0], EFFICIENTNET_B0.stages[-1]))
        for stage in EFFICIENTNET_B0.stages
    ),
    activation="relu6",
    scale_stem=False,
    scale_head=False,
    pixel_mean=LITE_MEAN,
    pixel_std=LITE_STD,
)

MOBILENET_V2 = ArchitectureSpec(
    name="mobilenetv2",
    stem=32,
    stages=(
        StageSpec(3, 1, 1, 16, 1),
        StageSpec(3, 2, 6, 24, 2),
        StageSpec(3, 2, 6, 32, 3),
        StageSpec(3, 2, 6, 64, 4),
        StageSpec(3, 1, 6, 96, 3),
        StageSpec(3, 2, 6, 160, 3),
        StageSpec(3, 1, 6, 320, 1),
    ),
    head=1280,
    activation="relu6",
    drop_connect_rate=0.0,
)

RESNET_18 = ArchitectureSpec(
    name="resnet18",
    stem=64,
    stem_kernel=7,
    stem_pool=True,
    stages=(
        _basic(stride=1, filters=64, repeats=2),
        _basic(stride=2, filters=128, repeats=2),
        _basic(stride=2, filters=256, repeats=2),
        _basic(stride=2, filters=512, repeats=2),
    ),
    head=0,
    activation="relu",
    dropout_rate=0.0,
    drop_connect_rate=0.0,
    bn_epsilon=1e-5,
)


RESNET_34 = replace(
    RESNET_18,
    name="resnet34",
    stages=tuple(
        replace(stage, repeats=repeats) for stage, repeats in zip(RESNET_18.stages, (3, 4, 6, 3), strict=True)
    ),
)

RESNET_50 = replace(
    RESNET_18,
    name="resnet50",
    stages=(
        _bottleneck(stride=1, filters=256, repeats=3),
        _bottleneck(stride=2, filters=512, repeats=4),
        _bottleneck(stride=2, filters=1024, repeats=6),
        _bottleneck(stride=2, filters=2048, repeats=3),
    ),
)

# WRN-50-2: the 3x3 convolutions are twice as wide.
WIDE_RESNET_50 = replace(
    RESNET_50,
    name="wide_resnet50",
    stages=tuple(replace(stage, inner=2 * stage.inner) for stage in RESNET_50.stages),
)

# WRN-28-1, for small images. `width` is the paper's k: width=10 is WRN-28-10. `depth` counts its blocks: WRN-40 has
# 6 a stage (depth=1.5), WRN-16 has 2 (depth=0.5).
WIDE_RESNET_28 = ArchitectureSpec(
    name="wide_resnet28",
    stem=16,
    stem_stride=1,
    scale_stem=False,
    stages=(
        _preact(stride=1, filters=16, repeats=4),
        _preact(stride=2, filters=32, repeats=4),
        _preact(stride=2, filters=64, repeats=4),
    ),
    head=0,
    image_size=32,
    activation="relu",
    dropout_rate=0.0,
    drop_connect_rate=0.0,
    bn_epsilon=1e-5,
)


# Prefix of a published name -> baseline of its rows, and prefix of its full name.
_FAMILIES = {
    "b": (EFFICIENTNET_B0, "efficientnet"),
    "lite": (EFFICIENTNET_LITE0, "efficientnet-"),
    "v2-b": (V2_B0, "efficientnet"),
}


def _published(name: str) -> ArchitectureSpec:
    row = PUBLISHED[name]
    base, prefix = _FAMILIES[name.rstrip("0123456789")]
    return replace(
        base,
        name=f"{prefix}{name}",
        depth=row.depth,
        width=row.width,
        image_size=row.resolution,
        dropout_rate=row.dropout,
    )


_BASELINES = (MOBILENET_V2, RESNET_18, RESNET_34, RESNET_50, WIDE_RESNET_50, WIDE_RESNET_28)
SPECS: dict[str, ArchitectureSpec] = (
    {name: _published(name) for name in PUBLISHED}
    | {spec.name.removeprefix("efficientnet"): spec for spec in (V2_S, V2_M, V2_L, V2_XL)}
    | {spec.name: spec for spec in _BASELINES}
)


def refuse_detector(name: object) -> None:
    """Refuse the name of a detector where networks of one output are meant: the closest of their names misleads.

    Raises:
        UserError: It is one, such as `"det-lite0"`.
    """
    if str(name).lower().startswith("det-"):
        raise UserError(
            f"{name} is a detector, and this takes other networks: keras_effnet.EfficientDet builds it, "
            "`keras-effnet info` counts it and `keras-effnet train --model` trains it."
        )


def _named(name: str | ArchitectureSpec) -> ArchitectureSpec:
    if isinstance(name, ArchitectureSpec):
        return name
    if str(name).endswith(SUFFIXES):
        return read_spec(name)
    refuse_detector(name)
    return SPECS[one_of("model", str(name).lower(), SPECS)]


def architecture_spec(
    name: str | ArchitectureSpec = "b0",
    *,
    phi: float | None = None,
    depth: float = 1.0,
    width: float = 1.0,
    resolution: float = 1.0,
    image_size: int | None = None,
    **changes: Any,
) -> ArchitectureSpec:
    """Look up a named network and scale it along one or all dimensions.

    Args:
        name: One of `list_models()`, such as `"b0"` to `"b7"`, `"lite0"` to `"lite4"`, `"v2-b0"`, `"v2-s"`,
            `"resnet50"`; or a spec of your own, or a `.yaml` file with one (see `yaml_files`).
        phi: Float, any real number: compound scaling by the paper's formula on top of `name`.
        depth: Float, multiplier of the blocks of `name`: `architecture_spec("resnet18", depth=2)` has twice as many.
        width: Float, multiplier of the channels of `name`.
        resolution: Float, multiplier of the input size of `name`: 1.5 takes 224 to 336.
        image_size: Int, side of the input in pixels; overrides `phi` and `resolution`.
        **changes: Any other field of `ArchitectureSpec`, such as `activation="relu6"` or `stem_stride=1`.

    Returns:
        An `ArchitectureSpec`.

    Raises:
        UserError: Unknown name, unknown field, or a factor that is not positive.

    Example:

    >>> architecture_spec("b0", phi=-1).image_size
    196
    """
    spec = _named(name)
    if phi is not None:
        factors = CompoundScaling().factors(phi)
        spec = spec.scaled(factors.depth, factors.width, factors.resolution)
        spec = replace(spec, name=f"{spec.name}-phi{phi:g}")
    if (depth, width, resolution) != (1.0, 1.0, 1.0):
        spec = spec.scaled(depth, width, resolution)
        spec = replace(spec, name=f"{spec.name}-d{depth:g}w{width:g}r{resolution:g}")
    if image_size is not None:
        changes["image_size"] = image_size
    for key in changes:
        one_of("architecture field", key, ArchitectureSpec.__dataclass_fields__)
    return replace(spec, **changes)
