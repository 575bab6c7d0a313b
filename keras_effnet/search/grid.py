"""Grid of compound scaling constants, each with the counted cost of its network. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.specs import ArchitectureSpec, Network, expand
from keras_effnet.complexity.counting import count
from keras_effnet.complexity.memory import training_bytes
from keras_effnet.errors import UserError, one_of
from keras_effnet.study.counted_cost import counted, solved_factor

CONSTRAINED = ("formula", "macs")
_MOST_POINTS = 2_000_000  # a step of 0.005
_ABOUT = 0.1  # deviation of a target from the paper's cost at which its constants are still a reference


@dataclass(frozen=True)
class ScalingCandidate:
    """Compound scaling constants and the baseline scaled by them at phi = 1.

    Args:
        scaling: `CompoundScaling`.
        spec: `ArchitectureSpec` of the scaled network.
        macs: Int, counted multiply-adds, after rounding channels to multiples of 8, blocks to integers and pixels to
            multiples of 4.
        ratio: Float, `macs` relative to the baseline.
        params: Int, trainable parameters.
        memory_bytes: Int, predicted for a training step of 32 images in float32.
    """

    scaling: CompoundScaling
    spec: ArchitectureSpec
    macs: int
    ratio: float
    params: int
    memory_bytes: int

    @property
    def formula(self) -> float:
        """Ratio of MACs without rounding, alpha * beta^2 * gamma^2."""
        return self.scaling.cost_per_phi


def _steps(highest: float, step: float) -> list[float]:
    """The values 1, 1 + step, ... up to `highest`, rounded to decimals."""
    return [round(1 + number * step, 6) for number in range(int((highest - 1) / step + 1e-6) + 1)]


def _axes(most: float, step: float) -> tuple[list[float], list[float]]:
    """Values of alpha, and of beta and gamma, up to one step beyond a cost of `most` with the other two at 1."""
    alphas, others = (most - 1) / step, (math.sqrt(most) - 1) / step
    if not alphas * others * others <= _MOST_POINTS:
        raise UserError(f"A grid of step {step:g} up to a cost of {most:g} has too many points: raise the step.")
    return _steps(most + step, step), _steps(math.sqrt(most) + step, step)


def _grid(most: float, step: float) -> Iterator[CompoundScaling]:
    """All constants up to a cost of `most`, and some beyond."""
    alphas, others = _axes(most, step)
    for alpha in alphas:
        for beta in others:
            for gamma in others:
                yield CompoundScaling(alpha, beta, gamma)


def _solved(base: ArchitectureSpec, target: float, most: float, step: float) -> Iterator[CompoundScaling]:
    """All alpha and beta of the grid, each with the gamma whose rounded network comes closest to the target in MACs."""
    wanted = target * counted(base)
    alphas, betas = _axes(most, step)
    for alpha in alphas:
        for beta in betas:
            grown = base.scaled(alpha, beta)
            if counted(grown) <= wanted * (1 + step):
                yield CompoundScaling(alpha, beta, max(1.0, round(solved_factor("resolution", grown, wanted), 6)))


def candidates(
    baseline: str | ArchitectureSpec = "b0",
    *,
    target: float = 2.0,
    step: float = 0.05,
    tolerance: float = 0.05,
    by: str = "formula",
    image_size: int | None = None,
    classes: int = 1000,
) -> list[ScalingCandidate]:
    """Constants alpha, beta, gamma >= 1 on a grid with a cost close to `target`, at phi = 1.

    By formula all three are on the grid; by MACs alpha and beta are, and gamma is solved for the rounded network. The
    constants of the paper are always among them, as the reference, where the target is about that of the paper, 2.
    Several may round to the same network, see `networks`.

    Args:
        baseline: A network's name, a YAML file of one, or an `ArchitectureSpec`.
        target: Float above 1, the ratio of cost to the baseline's.
        step: Float above 0, step of the grid.
        tolerance: Float, 0 to 1, relative deviation of the ratio from `target`.
        by: `"formula"`, the ratio before rounding, as in the paper; or `"macs"`, the counted ratio.
        image_size: Int, input size of the baseline in pixels; default: its own.
        classes: Int, outputs of the classifier.

    Returns:
        List of `ScalingCandidate`s, ordered by alpha, beta, gamma.

    Raises:
        UserError: A number is out of range, or no point of the grid meets the constraint; the message names the
            closest constants.

    Example:

    >>> len(candidates("b0")), candidates("b0")[0].scaling
    (111, CompoundScaling(alpha=1.0, beta=1.0, gamma=1.4))

    Source: EfficientNet (ICML 2019), section 3.3: a small grid search at phi = 1.
    """
    one_of("constraint", by, CONSTRAINED)
    if not target > 1 or not step > 0 or not 0 <= tolerance <= 1:
        raise UserError(
            f"target must be above 1, step above 0 and tolerance in 0..1; got {target}, {step}, {tolerance}."
        )
    base = architecture_spec(baseline, image_size=image_size) if image_size else architecture_spec(baseline)
    cost = count(base, classes=classes).macs

    def distance(ratio: float) -> float:
        return round(abs(ratio / target - 1), 9)

    most = target * (1 + tolerance)
    grid = list(_grid(most, step) if by == "formula" else _solved(base, target, most, step))
    if by == "formula":
        grid = [each for each in grid if distance(each.cost_per_phi) <= tolerance] or [
            min(grid, key=lambda each: distance(each.cost_per_phi))
        ]
    found = [_candidate(scaling, base, cost, classes) for scaling in grid]
    ratios = [each.formula if by == "formula" else each.ratio for each in found]
    near = [each for each, ratio in zip(found, ratios, strict=True) if distance(ratio) <= tolerance]
    if not near:
        _, best = min(zip(ratios, found, strict=True), key=lambda pair: distance(pair[0]))
        raise UserError(
            f"No constants on a grid of step {step:g} have a cost within {tolerance:.0%} of {target:g} by {by}. The "
            f"nearest are {format_constants(best.scaling)}: {best.formula:.3f} by formula, {best.ratio:.3f} in MACs. "
            "Raise --tolerance or lower --step."
        )
    paper = CompoundScaling()
    if distance(paper.cost_per_phi) <= _ABOUT and paper not in (each.scaling for each in near):
        near.append(_candidate(paper, base, cost, classes))
    return sorted(near, key=lambda each: (each.scaling.alpha, each.scaling.beta, each.scaling.gamma))


def networks(found: Iterable[ScalingCandidate]) -> list[list[ScalingCandidate]]:
    """Group candidates by the network they round to."""
    groups: dict[Network, list[ScalingCandidate]] = {}
    for candidate in found:
        groups.setdefault(expand(candidate.spec), []).append(candidate)
    return list(groups.values())


def format_constants(scaling: CompoundScaling) -> str:
    """Format constants as `(1.2, 1.1, 1.15)`."""
    return f"({scaling.alpha:g}, {scaling.beta:g}, {scaling.gamma:g})"


def _candidate(scaling: CompoundScaling, base: ArchitectureSpec, base_macs: int, classes: int) -> ScalingCandidate:
    factors = scaling.factors(1)
    spec = base.scaled(factors.depth, factors.width, factors.resolution)
    cost = count(spec, classes=classes)
    memory = training_bytes(spec, 32, classes=classes).total
    return ScalingCandidate(scaling, spec, cost.macs, cost.macs / base_macs, cost.params, memory)
