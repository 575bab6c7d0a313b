"""The networks of a study: a family by name, or a baseline scaled along one dimension or all. Pure Python.

Imports `baselines`, `scaling`, `spec_files`, `stages`, `errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import (
    PUBLISHED,
    RESOLUTION_DIVISOR,
    CompoundScaling,
    ScalingFactors,
    round_resolution,
)
from keras_effnet.architecture.yaml_files import SUFFIXES
from keras_effnet.config.resizing import SMALLEST, image_sizes
from keras_effnet.errors import UserError, one_of

AXES = ("compound", "depth", "width", "resolution")
BASELINE, FAMILY, PROGRESSIVE = "baseline", "family", "progressive"


@dataclass(frozen=True)
class Member:
    """A network of a study, as the options of `TrainConfig` that make it.

    Args:
        name: String, unique in a study; a folder bears it.
        axis: String, what it was made by: one of `AXES`, `"baseline"` (the starting point of all of them), `"family"`
            (chosen by name) or `"progressive"`.
        phi: Float, the cost it stands for on its axis: the baseline's times 1.92 ** phi before rounding.
        model: String, one of `list_models()` or the path of a `.yaml` file, see `spec_files`.
        depth, width, resolution: Floats, multipliers of `model`'s layers and channels and of `base_size`.
        base_size: Int, side of the study's baseline's input in pixels.
        progressive: String or None, image sizes that grow in training, as in `TrainConfig`.
    """

    name: str
    axis: str
    phi: float
    model: str
    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0
    base_size: int = 64
    progressive: str | None = None

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self.base_size if self.resolution == 1.0 else round_resolution(self.base_size * self.resolution)

    @property
    def options(self) -> dict[str, Any]:
        """What it sets of a `TrainConfig`."""
        chosen = ("model", "depth", "width", "image_size", "progressive")
        return {name: getattr(self, name) for name in chosen}

    @property
    def sizes(self) -> list[int]:
        """Image sizes that share its training, in pixels."""
        return image_sizes(self.progressive) if self.progressive else [self.image_size]


def resolved_name(model: str) -> str:
    """A network's name, or where its file lies from any working directory.

    Raises:
        UserError: Unknown name, or no network file.
    """
    architecture_spec(model)
    return str(Path(model).resolve()) if str(model).endswith(SUFFIXES) else str(model).lower()


def _resolution(model: str) -> float:
    """A published network's resolution as a multiple of its baseline's; 1 for networks that know no such thing."""
    return PUBLISHED[model].factors.resolution if model in PUBLISHED else 1.0


def family(models: Iterable[str], image_size: int = 64) -> list[Member]:
    """Published networks side by side, each at its own resolution in proportion.

    Args:
        models: Names, see `list_models()`.
        image_size: Int, pixels where the baseline of the published family has 224. B3, with 300, then has 84 of 64.

    Raises:
        UserError: Unknown name.
    """
    return [
        Member(
            name=Path(name).stem,
            axis=FAMILY,
            phi=PUBLISHED[name].phi if name in PUBLISHED else 0.0,
            model=name,
            resolution=_resolution(name),
            base_size=image_size,
        )
        for name in map(resolved_name, models)
    ]


def factors_along(axis: str, phi: float, scaling: CompoundScaling) -> ScalingFactors:
    """Factors that cost as much as `scaling.factors(phi)` before rounding, spent on one dimension or on all.

    Their `cost` equals `scaling.cost_per_phi ** phi` on every axis: doubling the layers costs what widening them by
    the square root of 2 does.

    Source: EfficientNet (ICML 2019), figure 3 and section 3.2.
    """
    one_of("axis", axis, AXES)
    if axis == "compound":
        return scaling.factors(phi)
    cost = scaling.cost_per_phi**phi
    return ScalingFactors(**{axis: cost if axis == "depth" else cost**0.5})


def scaled(
    baseline: str,
    phis: Sequence[float],
    axes: Sequence[str] = ("compound",),
    *,
    image_size: int = 64,
    scaling: CompoundScaling | None = None,
) -> list[Member]:
    """A baseline scaled step by step along one or several axes, at equal cost before rounding.

    Args:
        baseline: String, one of `list_models()` or a `.yaml` file.
        phis: Floats. 0 is the baseline itself, which all axes share; 1 costs about twice as much, -1 half.
        axes: Some of `"compound"`, `"depth"`, `"width"`, `"resolution"`.
        image_size: Int, side of the baseline's input in pixels.
        scaling: `CompoundScaling`, the paper's constants unless given.

    Returns:
        Members, axis by axis, in the order of `phis`, each network once.

    Raises:
        UserError: Unknown baseline or axis, or a resolution below 32 pixels.

    Example:

    >>> [member.image_size for member in scaled("b0", [-2, -1, 0])]
    [48, 56, 64]
    """
    baseline, scaling = resolved_name(baseline), scaling or CompoundScaling()
    members: dict[str, Member] = {}
    for axis in axes:
        for phi in phis:
            factors = factors_along(axis, phi, scaling)
            stem, way = Path(baseline).stem, "" if axis == "compound" else f"{axis}-"
            name = f"{stem}-{way}phi{phi:+g}" if phi else stem
            resolution = factors.resolution * _resolution(baseline)
            shape = (factors.depth, factors.width, resolution, image_size)
            members[name] = Member(name, axis if phi else BASELINE, float(phi), baseline, *shape)
            if image_size * resolution < SMALLEST - RESOLUTION_DIVISOR / 2:  # of which rounding makes less
                raise UserError(
                    f"{axis} at phi {phi:g} means {image_size * resolution:.0f} pixels, below the least of {SMALLEST}; "
                    f"start from a larger --image-size than {image_size}, or leave that phi out."
                )
    return list(members.values())


def progressive(baseline: str, image_size: int = 64, start: float = 0.5, steps: int = 3) -> list[Member]:
    """One network trained at a fixed resolution, and the same with images that grow while it trains.

    Args:
        baseline: String, one of `list_models()`.
        image_size: Int, side of the final input in pixels.
        start: Float in (0, 1), the first stage's share of it; never below 32 pixels.
        steps: Int, stages.

    Raises:
        UserError: Unknown name, or an `image_size` that leaves nothing to grow from.

    Source: progressive learning, Tan & Le, EfficientNetV2 (ICML 2021).
    """
    baseline = resolved_name(baseline)
    first = max(SMALLEST, image_size * start)
    shares = [first + (image_size - first) * step / (steps - 1) for step in range(steps)]
    sizes = sorted({round_resolution(share) for share in shares[:-1]} | {image_size})
    if len(sizes) < 2:
        raise UserError(f"Images of {image_size} pixels have nothing to grow from; give a larger --image-size.")
    fixed = Member(f"{Path(baseline).stem}-fixed", PROGRESSIVE, 0.0, baseline, base_size=image_size)
    growing = f"{Path(baseline).stem}-growing"
    return [fixed, replace(fixed, name=growing, progressive=",".join(map(str, sizes)))]
