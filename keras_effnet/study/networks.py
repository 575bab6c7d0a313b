"""Networks of a study: a family by name, or a baseline scaled along one dimension or all. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.detectors import detector_spec, published_name
from keras_effnet.architecture.scaling import (
    BASE_RESOLUTION,
    PUBLISHED,
    RESOLUTION_DIVISOR,
    CompoundScaling,
    ScalingFactors,
    round_resolution,
)
from keras_effnet.architecture.yaml_files import SUFFIXES
from keras_effnet.config.detectors import names_detector
from keras_effnet.config.resizing import SMALLEST, image_sizes
from keras_effnet.errors import UserError, one_of
from keras_effnet.study.counted_cost import counted, size_jump, solved_factor
from keras_effnet.tasks.learning import ACCURACY, LEARN_BOXES, Watched

AXES = ("compound", "depth", "width", "resolution")
BASELINE, FAMILY, PROGRESSIVE = "baseline", "family", "progressive"
_SIZE = 64  # input size of a baseline in pixels
_DETECTOR_STEP = 32  # pixels, of the input sizes of detectors
_UNEQUAL = 1.1  # ratio of MACs from which on networks do not cost the same


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
    def detects(self) -> bool:
        """Whether it is a detector, whose input is `base_size` and whose other sizes follow from its name or phi."""
        return names_detector(self.model)

    @property
    def watched(self) -> Watched:
        """The metric that compares it: accuracy, or average precision of a detector."""
        return LEARN_BOXES.watched if self.detects else ACCURACY

    @property
    def image_size(self) -> int:
        """Input size in pixels."""
        return _pixels(self.base_size, self.resolution)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `TrainConfig` that it sets."""
        if self.detects:
            return {"model": self.model, "image_size": self.base_size, **({"phi": self.phi} if self.phi else {})}
        chosen = ("model", "depth", "width", "image_size", "progressive")
        return {name: getattr(self, name) for name in chosen}

    @property
    def sizes(self) -> list[int]:
        """Image sizes it is trained at, in pixels."""
        return image_sizes(self.progressive) if self.progressive else [self.image_size]


def _pixels(base_size: int, resolution: float) -> int:
    return base_size if resolution == 1.0 else round_resolution(base_size * resolution)


def resolved_name(model: str) -> str:
    """Resolve a network's name to lower case, or its file to an absolute path.

    Raises:
        UserError: Unknown name, or not a network file.
    """
    if names_detector(model):
        detector_spec(model)
        return published_name(model)
    architecture_spec(model)
    return str(Path(model).resolve()) if str(model).endswith(SUFFIXES) else str(model).lower()


def relative_resolution(model: str) -> float:
    """Resolution of an EfficientNet relative to the baseline, B0; 1 for any other network."""
    published = model in PUBLISHED or model in ("v2-s", "v2-m", "v2-l", "v2-xl")
    return architecture_spec(model).image_size / BASE_RESOLUTION if published else 1.0


def detector_pixels(model: str, phi: float | None = None, image_size: int | None = None) -> int:
    """Input size of a detector in pixels.

    Args:
        model: String, name of a detector.
        phi: Float or None, instead of its own sizes those of the paper's rule.
        image_size: Int or None, size in pixels of the first of its kind, D0 or Lite0, in proportion to which it is
            scaled, to a multiple of 32; by default its own size.
    """
    own = detector_spec(model, phi=phi).image_size
    first = detector_spec("det-lite0" if "lite" in model else "det-d0").image_size
    return own if image_size is None else max(1, round(image_size * own / first / _DETECTOR_STEP)) * _DETECTOR_STEP


def _detector(model: str, axis: str, phi: float, image_size: int | None) -> Member:
    pixels = detector_pixels(model, phi or None, image_size)
    return Member(f"{model}-phi{phi:+g}" if phi else model, axis, float(phi), model, base_size=pixels)


def _scaled_detectors(
    baseline: str, phis: Sequence[float], axes: Sequence[str], image_size: int | None
) -> list[Member]:
    if set(axes) != {"compound"} or baseline != "det-d0":
        raise UserError(
            "Detectors are scaled by the rule of the paper, from det-d0 and along all dimensions together: "
            f"--baseline det-d0 --phi -1,0,1 without --axis; got baseline {baseline}, axis {', '.join(axes)}."
        )
    return [_detector(baseline, "compound" if phi else BASELINE, phi, image_size) for phi in dict.fromkeys(phis)]


def family(models: Iterable[str], image_size: int | None = None) -> list[Member]:
    """Networks chosen by name, each at its published resolution in proportion to the baseline.

    Args:
        models: Names, see `list_models()`, or `.yaml` files; or names of detectors.
        image_size: Int, input size in pixels of the baseline, which was published with 224; default: 64. With 64, B3
            (published with 300) gets 84. Of detectors: the size of D0 or Lite0; default: their own.

    Raises:
        UserError: Unknown name.
    """
    return [
        _detector(name, FAMILY, 0.0, image_size)
        if names_detector(name)
        else Member(
            name=Path(name).stem,
            axis=FAMILY,
            phi=PUBLISHED[name].phi if name in PUBLISHED else 0.0,
            model=name,
            resolution=relative_resolution(name),
            base_size=image_size or _SIZE,
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
    image_size: int | None = None,
    scaling: CompoundScaling | None = None,
    stem_stride: int | None = None,
) -> list[Member]:
    """Scale a baseline along one or several axes, at equal counted cost.

    With several axes, the factor of each single dimension is solved for the MACs of the rounded network: those that
    compound scaling has at the same phi, or `scaling.cost_per_phi ** phi` times the baseline's where it is not among
    the axes. With one axis, factors follow from the formula.

    Args:
        baseline: String, one of `list_models()`, a `.yaml` file, or `"det-d0"`, which is scaled by the rule of the
            EfficientDet paper.
        phis: Floats. 0 is the baseline itself, which all axes share; 1 costs about twice as much, -1 half.
        axes: Strings out of `"compound"`, `"depth"`, `"width"`, `"resolution"`.
        image_size: Int, input size of the baseline in pixels; default: 64, of a detector its own.
        scaling: `CompoundScaling`; default: the constants of the paper.
        stem_stride: Int, the study's option, which changes the MACs; default: the baseline's.

    Returns:
        List of `Member`s, axis by axis, in the order of `phis`, each network once.

    Raises:
        UserError: Unknown baseline or axis, or a resolution below 32 pixels.

    Example:

    >>> [member.image_size for member in scaled("b0", [-2, -1, 0])]
    [48, 56, 64]
    """
    baseline, scaling = resolved_name(baseline), scaling or CompoundScaling()
    if names_detector(baseline):
        return _scaled_detectors(baseline, phis, axes, image_size)
    image_size = image_size or _SIZE
    relative = relative_resolution(baseline)
    changes = {} if stem_stride is None else {"stem_stride": stem_stride}
    base = architecture_spec(baseline, image_size=_pixels(image_size, relative), **changes)
    members: dict[str, Member] = {}
    for axis in axes:
        for phi in phis:
            factors = factors_along(axis, phi, scaling)
            if phi and axis != "compound" and len(set(axes)) > 1:
                wanted = counted(base) * scaling.cost_per_phi**phi
                if "compound" in axes:
                    compound = scaling.factors(phi)
                    grown = base.scaled(compound.depth, compound.width)
                    wanted = counted(replace(grown, image_size=_pixels(image_size, relative * compound.resolution)))
                factors = ScalingFactors(**{axis: solved_factor(axis, base, wanted)})
            stem, way = Path(baseline).stem, "" if axis == "compound" else f"{axis}-"
            name = f"{stem}-{way}phi{phi:+g}" if phi else stem
            resolution = factors.resolution * relative
            shape = (factors.depth, factors.width, resolution, image_size)
            members[name] = Member(name, axis if phi else BASELINE, float(phi), baseline, *shape)
            if image_size * resolution < SMALLEST - RESOLUTION_DIVISOR / 2:  # rounds to less than SMALLEST
                raise UserError(
                    f"{axis} at phi {phi:g} gives {image_size * resolution:.0f} pixels, fewer than {SMALLEST}; "
                    f"choose an --image-size above {image_size}, or leave that phi out."
                )
    return list(members.values())


def cost_warnings(members: Sequence[Member], options: Mapping[str, Any] | None = None) -> list[str]:
    """Say what is unequal about the counted costs of networks, before they are trained.

    Args:
        members: `Member`s.
        options: Mapping, options of the study's protocol that change every network (`stem_stride`).

    Returns:
        List of sentences: one for the sizes at which MACs jump, one for axes that could not be given equal MACs.
    """
    changes = {name: value for name, value in (options or {}).items() if name == "stem_stride"}
    specs = {}
    for each in (member for member in members if not member.detects):
        specs[each] = architecture_spec(
            each.model, depth=each.depth, width=each.width, image_size=each.image_size, **changes
        )
    found = []
    jumps = {each: jump for each, spec in specs.items() if (jump := size_jump(spec))}
    if jumps:
        first, jump = next(iter(jumps.items()))
        others = f" (and {len(jumps) - 1} other network{'s' * (len(jumps) > 2)})" if len(jumps) > 1 else ""
        finer = ", or --set stem_stride=1" if specs[first].stem_stride > 1 else ""
        found.append(
            f"{first.name}{others}: {jump}. Such sizes pay for a map of which most is border. There is no jump at "
            f"multiples of {jump.above - jump.below} pixels, such as {jump.above}; choose another --image-size{finer}."
        )
    for model, phi in dict.fromkeys((each.model, each.phi) for each in specs if each.axis in AXES):
        rivals = {each: counted(specs[each]) for each in specs if (each.model, each.phi) == (model, phi)}
        rivals = {each: macs for each, macs in rivals.items() if each.axis in AXES}
        low, high = min(rivals, key=rivals.__getitem__), max(rivals, key=rivals.__getitem__)
        if rivals[high] > _UNEQUAL * rivals[low]:
            found.append(
                f"At phi {phi:g} the axes cannot cost the same at these sizes: {low.name} has {rivals[low] / 1e6:.1f} "
                f"million MACs, {high.name} {rivals[high] / 1e6:.1f}."
            )
    return found


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
    if names_detector(baseline):
        raise UserError("Detectors have anchors for one image size: leave --axis progressive out.")
    first = max(SMALLEST, image_size * start)
    shares = [first + (image_size - first) * step / (steps - 1) for step in range(steps)]
    sizes = sorted({round_resolution(share) for share in shares[:-1]} | {image_size})
    if len(sizes) < 2:
        raise UserError(f"Progressive resizing to {image_size} pixels has no smaller first stage; raise --image-size.")
    fixed = Member(f"{Path(baseline).stem}-fixed", PROGRESSIVE, 0.0, baseline, base_size=image_size)
    growing = f"{Path(baseline).stem}-growing"
    return [fixed, replace(fixed, name=growing, progressive=",".join(map(str, sizes)))]
