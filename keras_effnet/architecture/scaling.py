"""Compound scaling: the formula and the published table, side by side. Pure Python.

Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from keras_effnet.errors import UserError, one_of, real_number

BASE_RESOLUTION = 224
RESOLUTION_DIVISOR = 4  # every published resolution is a multiple of 4


@dataclass(frozen=True)
class ScalingFactors:
    """Multipliers of a baseline's depth, width and resolution; 1.0 is the baseline itself."""

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = real_number(name, value)
            if not (math.isfinite(number) and number > 0):
                raise UserError(f"{name} must be a positive number, got {number!r}.")
            object.__setattr__(self, name, number)

    @property
    def cost(self) -> float:
        """Growth of MACs before rounding: depth * width^2 * resolution^2."""
        return self.depth * self.width**2 * self.resolution**2


@dataclass(frozen=True)
class CompoundScaling:
    """The compound scaling rule: depth alpha^phi, width beta^phi, resolution gamma^phi.

    Cost grows as `cost_per_phi ** phi`. The paper constrains alpha * beta^2 * gamma^2 to about 2, so that each step of
    phi doubles the MACs; its own constants give 1.92. (The sum alpha + beta + gamma, sometimes quoted as the
    constraint, is 3.45.)

    Args:
        alpha: Float >= 1, growth of the depth per unit of phi.
        beta: Float >= 1, growth of the width per unit of phi.
        gamma: Float >= 1, growth of the resolution per unit of phi.

    Example:

    >>> CompoundScaling().factors(0)
    ScalingFactors(depth=1.0, width=1.0, resolution=1.0)

    Source: EfficientNet (ICML 2019), section 3.3, equation 3.
    """

    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = real_number(name, value)
            if not (math.isfinite(number) and number >= 1):
                raise UserError(f"{name} must be a number >= 1, got {number!r}: no dimension may shrink as phi grows.")
            object.__setattr__(self, name, number)

    @property
    def cost_per_phi(self) -> float:
        """alpha * beta^2 * gamma^2, the factor by which MACs grow per unit of phi."""
        return self.alpha * self.beta**2 * self.gamma**2

    def factors(self, phi: float) -> ScalingFactors:
        """Depth, width and resolution multipliers for a compound coefficient.

        Their `cost` equals `cost_per_phi ** phi` for every phi.

        Args:
            phi: Float, any real number. `0` is the baseline; `-1` is about half its cost.

        Returns:
            `ScalingFactors(depth, width, resolution)`, each a plain multiplier (1.0 = baseline).

        Raises:
            UserError: The multipliers of such a phi exceed every float.

        Source: EfficientNet (ICML 2019), equation 3.
        """
        phi = real_number("phi", phi)
        if not math.isfinite(phi):
            raise UserError(f"phi must be a finite number, got {phi}.")
        try:
            return ScalingFactors(self.alpha**phi, self.beta**phi, self.gamma**phi)
        except OverflowError:
            raise UserError(f"phi is too large: {phi:g}. B7 is about 7.") from None


@dataclass(frozen=True)
class PublishedVariant:
    """One row of the published table, which the authors rounded by hand.

    Args:
        width: Float, multiplier of the channels.
        depth: Float, multiplier of the repeats.
        resolution: Int, side of the input in pixels.
        dropout: Float in [0, 1), rate before the classifier.
        phi: Float, compound coefficient that fits the row best.
        top1: Float, ImageNet top-1 accuracy in percent, as published.
    """

    width: float
    depth: float
    resolution: int
    dropout: float
    phi: float
    top1: float

    @property
    def factors(self) -> ScalingFactors:
        """Multipliers relative to the baseline."""
        return ScalingFactors(self.depth, self.width, self.resolution / BASE_RESOLUTION)


# phi of B1-B7 is fitted to the rows, which are not computed from it. Top-1 of Lite is that of float32. V2-B0 to V2-B3
# scale V2-B0 by the rows of B0 to B3.
#                          width depth resolution dropout phi  top1
PUBLISHED: dict[str, PublishedVariant] = {
    "b0": PublishedVariant(1.0, 1.0, 224, 0.2, 0.0, 77.1),
    "b1": PublishedVariant(1.0, 1.1, 240, 0.2, 0.5, 79.1),
    "b2": PublishedVariant(1.1, 1.2, 260, 0.3, 1.0, 80.1),
    "b3": PublishedVariant(1.2, 1.4, 300, 0.3, 2.0, 81.6),
    "b4": PublishedVariant(1.4, 1.8, 380, 0.4, 3.5, 82.9),
    "b5": PublishedVariant(1.6, 2.2, 456, 0.4, 5.0, 83.6),
    "b6": PublishedVariant(1.8, 2.6, 528, 0.5, 6.0, 84.0),
    "b7": PublishedVariant(2.0, 3.1, 600, 0.5, 7.0, 84.3),
    "lite0": PublishedVariant(1.0, 1.0, 224, 0.2, 0.0, 75.1),
    "lite1": PublishedVariant(1.0, 1.1, 240, 0.2, 0.5, 76.7),
    "lite2": PublishedVariant(1.1, 1.2, 260, 0.3, 1.0, 77.6),
    "lite3": PublishedVariant(1.2, 1.4, 280, 0.3, 2.0, 79.8),
    "lite4": PublishedVariant(1.4, 1.8, 300, 0.3, 3.5, 81.5),
    "v2-b0": PublishedVariant(1.0, 1.0, 224, 0.2, 0.0, 78.7),
    "v2-b1": PublishedVariant(1.0, 1.1, 240, 0.2, 0.5, 79.8),
    "v2-b2": PublishedVariant(1.1, 1.2, 260, 0.3, 1.0, 80.5),
    "v2-b3": PublishedVariant(1.2, 1.4, 300, 0.3, 2.0, 82.1),
}


def round_filters(filters: int, width: float, divisor: int = 8, floor: float = 0.9) -> int:
    """Scale channels by `width` and round them to a multiple of `divisor`.

    The result is a positive multiple of `divisor` and at least the share `floor` of `filters * width`: EfficientNet
    keeps 90%, EfficientNetV2 rounds to the nearest multiple. A width of exactly 1 returns `filters` unchanged.

    Example:

    >>> round_filters(32, 1.1), round_filters(64, 3.0)
    (32, 192)
    """
    if width == 1.0:
        return filters
    scaled = filters * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < floor * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scale the repeats of a stage by `depth`, rounded up and at least 1."""
    return max(1, math.ceil(round(depth * repeats, 9)))  # 2.2 * 25 is 55.00000000000001 in floats


def round_resolution(size: float, divisor: int = RESOLUTION_DIVISOR) -> int:
    """Round the side of the input in pixels to the nearest multiple of `divisor`, at least 32."""
    return max(32, int(size / divisor + 0.5) * divisor)


@dataclass(frozen=True)
class Explanation:
    """Comparison of a published network with the formula; `str()` formats it as a table."""

    name: str
    phi: float
    published: ScalingFactors
    formula: ScalingFactors
    published_resolution: int
    formula_resolution: int

    def __str__(self) -> str:
        rows = (
            ("depth", f"{self.published.depth:.2f}", f"{self.formula.depth:.2f}"),
            ("width", f"{self.published.width:.2f}", f"{self.formula.width:.2f}"),
            ("resolution", f"{self.published_resolution} px", f"{self.formula_resolution} px"),
            ("cost (d*w^2*r^2)", f"{self.published.cost:.2f}", f"{self.formula.cost:.2f}"),
        )
        table = "\n".join(f"  {name:<18}{ours:>10}{rule:>16}" for name, ours, rule in rows)
        return (
            f"{self.name}: published by hand, close to phi = {self.phi:g}\n"
            f"  {'':<18}{'published':>10}{'formula':>16}\n{table}"
        )


def explain(name: str, scaling: CompoundScaling | None = None) -> Explanation:
    """Compare a published network with the compound scaling formula.

    B1-B7 are not exactly alpha^phi, beta^phi, gamma^phi: the authors rounded a table by hand and trained what it says.
    The row is shown beside the formula at the phi that fits it best.

    Args:
        name: `"b0"` to `"b7"`, `"lite0"` to `"lite4"`, `"v2-b0"` to `"v2-b3"`. V2-S to V2-XL were not scaled but
            searched and tabulated one by one.
        scaling: `CompoundScaling`, by default with the paper's constants.

    Returns:
        An `Explanation`; print it.

    Raises:
        UserError: The published table has no such name.
    """
    row = PUBLISHED[one_of("published model", str(name).lower(), PUBLISHED)]
    formula = (scaling or CompoundScaling()).factors(row.phi)
    return Explanation(
        name=name.lower(),
        phi=row.phi,
        published=row.factors,
        formula=formula,
        published_resolution=row.resolution,
        formula_resolution=round_resolution(BASE_RESOLUTION * formula.resolution),
    )
