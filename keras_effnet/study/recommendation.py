"""Recommend the largest network for a cost limit, from power laws of a study's error and cost.

NumPy and SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.complexity.counting import Complexity, count
from keras_effnet.errors import UserError
from keras_effnet.study.networks import BASELINE, Member
from keras_effnet.study.power_law import PowerLaw, error_law
from keras_effnet.study.summary import Summary

_REACH = 4.0  # how far phi may go beyond the measured range: further extrapolation is unreliable
_STEP = 0.05  # step of the search over phi


@dataclass(frozen=True)
class Scaled:
    """Compound scaling of a study, which yields a network for any phi.

    Args:
        baseline: String, a network's name or YAML file.
        base_size: Int, input size of the baseline in pixels.
        scaling: `CompoundScaling`.
        options: Tuple of pairs, options of the study's protocol that change every network (`stem_stride`).
    """

    baseline: str
    base_size: int
    scaling: CompoundScaling
    options: tuple[tuple[str, Any], ...] = ()

    def spec(self, phi: float) -> ArchitectureSpec:
        """The network at a compound coefficient."""
        base = architecture_spec(self.baseline, image_size=self.base_size, **dict(self.options))
        factors = self.scaling.factors(phi)
        return base.scaled(factors.depth, factors.width, factors.resolution)


def scaled_of(members: Sequence[Member], options: dict[str, Any] | None = None) -> tuple[Scaled, list[str]]:
    """Derive the compound scaling of a study from its members.

    Returns:
        Tuple of the `Scaled` and the names of the members that follow it.

    Raises:
        UserError: The study has fewer than two networks of compound scaling.
    """
    compound = [member for member in members if member.axis == "compound"]
    chosen = compound + [member for member in members if compound and _is_base(member, compound[0])]
    if len(chosen) < 2:
        raise UserError(
            "A recommendation needs a study of at least two networks of compound scaling; add some with study --resume "
            "FOLDER --phi -2,-1,0."
        )
    far = max(compound, key=lambda member: abs(member.phi))
    alpha, beta, gamma = (round(value ** (1 / far.phi), 6) for value in (far.depth, far.width, far.resolution))
    shape = {name: value for name, value in (options or {}).items() if name == "stem_stride"}
    scaling = CompoundScaling(alpha, beta, gamma)
    return Scaled(far.model, far.base_size, scaling, tuple(shape.items())), [member.name for member in chosen]


def _is_base(member: Member, other: Member) -> bool:
    return member.axis == BASELINE and (member.model, member.base_size) == (other.model, other.base_size)


@dataclass(frozen=True)
class CostLimit:
    """Limit on the cost of a network in use.

    Args:
        kind: `"macs"`, `"params"`, `"tflite_ms"` or `"tflite_bytes"`, fields of `Summary`.
        amount: Float above 0, in the field's unit.
    """

    kind: str
    amount: float


@dataclass(frozen=True)
class Recommendation:
    """The largest network of a study's compound scaling within a cost limit.

    Args:
        model: String, the baseline.
        phi: Float.
        depth, width: Floats, multipliers of the baseline's layers and channels.
        image_size: Int, pixels.
        macs, params: Ints, counted.
        cost: Float, in the unit of the limit; predicted for `"tflite_ms"` and `"tflite_bytes"`.
        accuracy: Float in [0, 1], predicted.
        band: Pair of floats, 95% prediction interval of the accuracy of one training, if the law holds.
        measured: Pair of floats, the smallest and the largest phi of the study.
        limited: Bool, True where the limit allows larger networks than the study can predict.
    """

    model: str
    phi: float
    depth: float
    width: float
    image_size: int
    macs: int
    params: int
    cost: float
    accuracy: float
    band: tuple[float, float]
    measured: tuple[float, float]
    limited: bool

    @property
    def extrapolated(self) -> bool:
        """Whether phi lies outside the measured range."""
        return not self.measured[0] <= self.phi <= self.measured[1]


def _cost_of(summaries: Sequence[Summary], kind: str) -> Callable[[Complexity], float]:
    """Function that predicts a cost from the counted complexity, from a fit where it is a measured cost."""
    if kind in ("macs", "params"):
        return lambda counted: getattr(counted, kind)
    if kind == "tflite_bytes":  # four bytes for each weight, and a constant
        rest = float(np.mean([summary.tflite_bytes - 4 * summary.params for summary in summaries]))
        return lambda counted: 4 * counted.params + rest
    macs, times = ([getattr(summary, name) for summary in summaries] for name in ("macs", kind))
    law = PowerLaw.fit(macs, times, minimum=2)
    return lambda counted: law.at(counted.macs)


def recommend(
    summaries: Sequence[Summary], members: Sequence[Member], budget: CostLimit, *, classes: int = 1000, options=None
) -> Recommendation:
    """Recommend the largest network within a cost limit, by compound scaling of a study's baseline.

    MACs and parameters are counted on the network itself. Its latency is predicted by a power law of MACs, fitted to
    the measured networks, its accuracy by one fitted to all trainings; both extrapolate beyond the measured networks.

    Args:
        summaries: `Summary`s of the study.
        members: `Member`s of the study.
        budget: `CostLimit`.
        classes: Int, number of classes of the study's data.
        options: Mapping, options of the study's protocol.

    Returns:
        A `Recommendation`.

    Raises:
        UserError: The study has no compound scaling or too few results, or the limit is too small.

    Example:

    >>> recommend(summarize(rows), plan.members, CostLimit("tflite_ms", 10)).phi
    """
    if not budget.amount > 0:
        raise UserError(f"The budget must be above 0, got {budget.amount!r}.")
    scaled, names = scaled_of(members, options)
    used = [summary for summary in summaries if summary.member in names]
    law, cost = error_law(used), _cost_of(used, budget.kind)
    phis = sorted(summary.phi for summary in used)
    steps = range(math.floor((phis[0] - _REACH) / _STEP), math.ceil((phis[-1] + _REACH) / _STEP) + 1)
    costs = {}
    for step in steps:
        phi = round(step * _STEP, 6)
        counted = count(scaled.spec(phi), classes=classes)
        costs[phi] = (cost(counted), counted)
    within = [phi for phi, (amount, _) in costs.items() if amount <= budget.amount]
    if not within:
        smallest, (amount, _) = next(iter(costs.items()))
        raise UserError(
            f"The budget is too small: {budget.amount:g} is below the {amount:.3g} of phi {smallest:g}, the smallest "
            "network that this study can predict."
        )
    phi = max(within)
    amount, counted = costs[phi]
    factors, spec = scaled.scaling.factors(phi), scaled.spec(phi)
    low, high = law.band(counted.macs)
    return Recommendation(
        model=scaled.baseline,
        phi=phi,
        depth=factors.depth,
        width=factors.width,
        image_size=spec.image_size,
        macs=counted.macs,
        params=counted.params,
        cost=amount,
        accuracy=max(0.0, 1 - law.at(counted.macs)),
        band=(max(0.0, 1 - high), max(0.0, 1 - low)),
        measured=(phis[0], phis[-1]),
        limited=phi == max(costs),
    )
