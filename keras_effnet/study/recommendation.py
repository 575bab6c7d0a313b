"""Recommend the largest network for a cost limit, from power laws of a study's error and cost.

NumPy and SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.complexity.cost import Complexity
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError, one_of
from keras_effnet.study.networks import BASELINE, Member, relative_resolution
from keras_effnet.study.power_law import PowerLaw, error_law
from keras_effnet.study.protocol import Pace, Protocol, training_epochs
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

    def member(self, phi: float) -> Member:
        """The network at a compound coefficient, as a study trains it."""
        factors = self.scaling.factors(phi)
        resolution = factors.resolution * relative_resolution(self.baseline)
        depth, width, resolution = (round(value, 6) for value in (factors.depth, factors.width, resolution))
        return Member(f"phi{phi:+g}", "compound", phi, self.baseline, depth, width, resolution, self.base_size)

    def spec(self, phi: float) -> ArchitectureSpec:
        """Architecture of the network at a compound coefficient."""
        member = self.member(phi)
        options = dict(self.options) | {"image_size": member.image_size}
        return architecture_spec(self.baseline, depth=member.depth, width=member.width, **options)


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
    resolution = far.resolution / relative_resolution(far.model)
    alpha, beta, gamma = (round(value ** (1 / far.phi), 6) for value in (far.depth, far.width, resolution))
    shape = {name: value for name, value in (options or {}).items() if name == "stem_stride"}
    scaling = CompoundScaling(alpha, beta, gamma)
    return Scaled(far.model, far.base_size, scaling, tuple(shape.items())), [member.name for member in chosen]


def _is_base(member: Member, other: Member) -> bool:
    return member.axis == BASELINE and (member.model, member.base_size) == (other.model, other.base_size)


class LimitUnit(NamedTuple):
    """Unit in which a limit is given and reported: its size in the unit of the `Summary` field, and its name."""

    size: float
    name: str

    def shown(self, amount: float) -> str:
        """Format an amount that is in the field's unit, such as `"4.1 MB"`."""
        value = amount / self.size
        return f"{value:,.0f} {self.name}" if abs(value) >= 1000 else f"{value:.3g} {self.name}"


# Fields of `Summary` that can be limited.
LIMITS = {
    "tflite_ms": LimitUnit(1.0, "ms"),
    "macs": LimitUnit(1.0, "MACs"),
    "tflite_bytes": LimitUnit(1e6, "MB"),
    "params": LimitUnit(1.0, "parameters"),
}


@dataclass(frozen=True)
class CostLimit:
    """Limit on the cost of a network in use.

    Args:
        kind: `"macs"`, `"params"`, `"tflite_ms"` or `"tflite_bytes"`, fields of `Summary`.
        amount: Float above 0, in the field's unit.
    """

    kind: str
    amount: float

    def __post_init__(self):
        one_of("cost limit", self.kind, LIMITS)
        if not 0 < self.amount < math.inf:
            raise UserError(f"The budget must be above 0 and finite, got {self.shown(self.amount)}.")

    def shown(self, amount: float) -> str:
        """Format an amount in the unit in which limits of this kind are given."""
        return LIMITS[self.kind].shown(amount)


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
        band: Pair of floats, 95% prediction interval of the accuracy over as many seeds as the study's, if the law
            holds; 0 and 1 for a study of two networks, which cannot show how networks scatter around a law.
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
    def member(self) -> Member:
        """The network as a study trains it."""
        name = f"phi{self.phi:+g}"
        return Member(name, "compound", self.phi, self.model, self.depth, self.width, base_size=self.image_size)

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
    if any(member.detects for member in members):
        raise UserError("Networks are recommended from studies of classifiers; detectors have whole numbers of cells.")
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
            f"The budget of {budget.shown(budget.amount)} is too small: the smallest network that this study can "
            f"predict, at phi {smallest:g}, has {budget.shown(amount)}."
        )
    phi = max(within)
    amount, counted = costs[phi]
    member = scaled.member(phi)
    low, high = law.band(counted.macs)
    return Recommendation(
        model=scaled.baseline,
        phi=phi,
        depth=member.depth,
        width=member.width,
        image_size=member.image_size,
        macs=counted.macs,
        params=counted.params,
        cost=amount,
        accuracy=max(0.0, 1 - law.at(counted.macs)),
        band=(max(0.0, 1 - high), max(0.0, 1 - low)),
        measured=(phis[0], phis[-1]),
        limited=phi == max(costs),
    )


def planned_epochs(
    found: Recommendation,
    protocol: Protocol,
    summaries: Sequence[Summary],
    *,
    classes: int = 1000,
    images: tuple[int, int] | None = None,
    paces: Mapping[str, Pace] = MappingProxyType({}),
) -> int:
    """Number of epochs that the study's budget gives to a recommended network.

    Args:
        found: `Recommendation`.
        protocol: `Protocol` of the study.
        summaries: `Summary`s of the study, whose times predict those of the network.
        classes: Int, number of classes of the study's data.
        images: Pair of ints, numbers of training and validation images; None where they are not known, which gives the
            epochs of the network closest in MACs.
        paces: Mapping, name of a network of the study to its `Pace`, where the budget is one of seconds.
    """
    if images is None and protocol.budget.kind != "epochs":
        return min(summaries, key=lambda each: abs(math.log(each.macs / found.macs))).epochs
    macs = [each.macs for each in summaries]
    cost = {
        name: PowerLaw.fit(macs, [getattr(each, name) for each in summaries], minimum=2).at(found.macs)
        for name in ("step_ms", "predict_ms")
    }
    timed = [(each.macs, paces[each.member]) for each in summaries if each.member in paces]
    pace = None
    if len(timed) > 1:
        sizes, known = zip(*timed, strict=True)
        epoch = PowerLaw.fit(sizes, [each.epoch_seconds for each in known], minimum=2).at(found.macs)
        pace = Pace(Pace.mean(known).first_seconds, epoch)
    return training_epochs(protocol, found.member, cost, classes, images or (1, 1), pace)
