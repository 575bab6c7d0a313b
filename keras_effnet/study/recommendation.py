"""What more would buy: error and cost as power laws of what a study measured, and the network for a budget.

numpy and scipy, no TensorFlow; imports `summary`, `members`, `baselines`, `complexity`, `scaling`, `errors`.
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

_REACH = 4.0  # steps of phi beyond what was measured, at most: further on a straight line says nothing
_STEP = 0.05  # of phi, in which a budget is filled


@dataclass(frozen=True)
class Scaled:
    """The networks that compound scaling made in a study, and those beyond.

    Args:
        baseline: String, a network's name or YAML file.
        base_size: Int, pixels of the baseline's input.
        scaling: `CompoundScaling`.
        options: Mapping, what the study's protocol adds to every network (`stem_stride`).
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
    """The compound scaling of a study, read off its members, and the names of those that follow it.

    Raises:
        UserError: Fewer than two networks of the study were made by compound scaling.
    """
    compound = [member for member in members if member.axis == "compound"]
    chosen = compound + [member for member in members if compound and _is_base(member, compound[0])]
    if len(chosen) < 2:
        raise UserError(
            "Nothing to go on from: the study has no two networks of compound scaling. Add some: study --resume FOLDER "
            "--phi -2,-1,0."
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
    """A limit on what a network may cost in use.

    Args:
        kind: `"macs"`, `"params"`, `"tflite_ms"` or `"tflite_bytes"`, fields of `Summary`.
        amount: Float above 0, in the field's unit.
    """

    kind: str
    amount: float


@dataclass(frozen=True)
class Recommendation:
    """The largest network of a study's scaling that a budget buys.

    Args:
        model: String, the baseline.
        phi: Float.
        depth, width: Floats, multipliers of it.
        image_size: Int, pixels.
        macs, params: Ints, counted.
        cost: Float, what it takes of the budget; predicted for `"tflite_ms"` and `"tflite_bytes"`.
        accuracy: Float, predicted.
        band: Pair of floats, between which the accuracy of a training falls with 95% confidence, if the law holds.
        measured: Pair of floats, the least and the greatest phi of the study.
        limited: Bool, whether the budget would buy more than the study can speak of.
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
        """Whether phi lies outside of what was measured."""
        return not self.measured[0] <= self.phi <= self.measured[1]


def _cost_of(summaries: Sequence[Summary], kind: str) -> Callable[[Complexity], float]:
    """A cost as a function of what is counted: itself, or a line through what was measured."""
    if kind in ("macs", "params"):
        return lambda counted: getattr(counted, kind)
    if kind == "tflite_bytes":  # weights, and a constant for the rest
        rest = float(np.mean([summary.tflite_bytes - 4 * summary.params for summary in summaries]))
        return lambda counted: 4 * counted.params + rest
    macs, times = ([getattr(summary, name) for summary in summaries] for name in ("macs", kind))
    law = PowerLaw.fit(macs, times, minimum=2)
    return lambda counted: law.at(counted.macs)


def recommend(
    summaries: Sequence[Summary], members: Sequence[Member], budget: CostLimit, *, classes: int = 1000, options=None
) -> Recommendation:
    """The largest network within a budget, by compound scaling of a study's baseline, and the accuracy to expect.

    MACs and parameters are counted on the real network. Its time is read off a power law of MACs through the measured
    ones, its accuracy off one through all trainings: beyond the measured networks both are extrapolated.

    Args:
        summaries: `Summary`s of the study.
        members: `Member`s of the study.
        budget: `CostLimit`.
        classes: Int, of the study's data.
        options: Mapping, of the study's protocol.

    Returns:
        A `Recommendation`.

    Raises:
        UserError: A study without compound scaling, with too few results, or a budget that is too small.

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
            "that this study can speak of."
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
