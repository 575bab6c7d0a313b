"""Networks of a study: a family by name, or a baseline scaled along one dimension or all. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import (
    BASE_RESOLUTION,
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
    """Network of a study, as the `TrainConfig` options that define it.

    Args:
        name: String, unique in a study; also the name of its folder.
        axis: String, how it was made: by scaling along one of `AXES`, or `"baseline"` (the start of every axis),
            `"family"` (chosen by name) or `"progressive"`.
        phi: Float, compound coefficient: its cost before rounding is `cost_per_phi ** phi` times the baseline's,
            1.92 ** phi with the constants of the paper.
        model: String, one of `list_models()` or the path of a `.yaml` file.
        depth, width, resolution: Floats, multipliers of `model`'s layers and channels and of `base_size`.
        base_size: Int, input size of the baseline in pixels.
        progressive: String or None, image sizes of progressive resizing, as in `TrainConfig`.
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
        """Input size in pixels."""
        return self.base_size if self.resolution == 1.0 else round_resolution(self.base_size * self.resolution)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `TrainConfig` that it sets."""
        chosen = ("model", "depth", "width", "image_size", "progressive")
        return {name: getattr(self, name) for name in chosen}

    @property
    def sizes(self) -> list[int]:
        """Image sizes it is trained at, in pixels."""
        return image_sizes(self.progressive) if self.progressive else [self.image_size]


def resolved_name(model: str) -> str:
    """Resolve a network's name to lower case, or its file to an absolute path.

    Raises:
        UserError: Unknown name, or not a network file.
    """
    architecture_spec(model)
    return str(Path(model).resolve()) if str(model).endswith(SUFFIXES) else str(model).lower()


def relative_resolution(model: str) -> float:
    """Resolution of an EfficientNet relative to the baseline, B0; 1 for any other network."""
    published = model in PUBLISHED or model in ("v2-s", "v2-m", "v2-l", "v2-xl")
    return architecture_spec(model).image_size / BASE_RESOLUTION if published else 1.0


def family(models: Iterable[str], image_size: int = 64) -> list[Member]:
    """Networks chosen by name, each at its published resolution in proportion to the baseline.

    Args:
        models: Names, see `list_models()`, or `.yaml` files.
        image_size: Int, input size in pixels of the baseline, which was published with 224. With 64, B3 (published
            with 300) gets 84.

    Raises:
        UserError: Unknown name.
    """
    return [
        Member(
            name=Path(name).stem,
            axis=FAMILY,
            phi=PUBLISHED[name].phi if name in PUBLISHED else 0.0,
            model=name,
            resolution=relative_resolution(name),
            base_size=image_size,
        )
        for name in map(resolved_name, models)
    ]


def factors_along(axis: str, phi: float, scaling: CompoundScaling) -> ScalingFactors:
    """Scaling factors with the same cost as `scaling.factors(phi)` before rounding, along one dimension or all.

    Their `cost` equals `scaling.cost_per_phi ** phi` on every axis: doubling the layers costs as much as multiplying
    the channels by the square root of 2.

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
    """Scale a baseline along one or several axes, at equal cost before rounding.

    Args:
        baseline: String, one of `list_models()` or a `.yaml` file.
        phis: Floats. 0 is the baseline itself, which all axes share; 1 costs about twice as much, -1 half.
        axes: Strings out of `"compound"`, `"depth"`, `"width"`, `"resolution"`.
        image_size: Int, input size of the baseline in pixels.
        scaling: `CompoundScaling`; default: the constants of the paper.

    Returns:
        List of `Member`s, axis by axis, in the order of `phis`, each network once.

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
            resolution = factors.resolution * relative_resolution(baseline)
            shape = (factors.depth, factors.width, resolution, image_size)
            members[name] = Member(name, axis if phi else BASELINE, float(phi), baseline, *shape)
            if image_size * resolution < SMALLEST - RESOLUTION_DIVISOR / 2:  # rounds to less than SMALLEST
                raise UserError(
                    f"{axis} at phi {phi:g} gives {image_size * resolution:.0f} pixels, fewer than {SMALLEST}; "
                    f"choose an --image-size above {image_size}, or leave that phi out."
                )
    return list(members.values())


def progressive(baseline: str, image_size: int = 64, start: float = 0.5, steps: int = 3) -> list[Member]:
    """One network trained at a fixed image size, and the same network trained with progressive resizing.

    Args:
        baseline: String, one of `list_models()`.
        image_size: Int, final input size in pixels.
        start: Float in (0, 1), image size of the first stage as a fraction of `image_size`; at least 32 pixels.
        steps: Int, at least 2, number of stages.

    Raises:
        UserError: Unknown name, or an `image_size` too small for a smaller first stage.

    Source: progressive learning, Tan & Le, EfficientNetV2 (ICML 2021).
    """
    baseline = resolved_name(baseline)
    first = max(SMALLEST, image_size * start)
    shares = [first + (image_size - first) * step / (steps - 1) for step in range(steps)]
    sizes = sorted({round_resolution(share) for share in shares[:-1]} | {image_size})
    if len(sizes) < 2:
        raise UserError(f"Progressive resizing to {image_size} pixels has no smaller first stage; raise --image-size.")
    fixed = Member(f"{Path(baseline).stem}-fixed", PROGRESSIVE, 0.0, baseline, base_size=image_size)
    growing = f"{Path(baseline).stem}-growing"
    return [fixed, replace(fixed, name=growing, progressive=",".join(map(str, sizes)))]
