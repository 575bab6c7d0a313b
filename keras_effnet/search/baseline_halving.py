"""Sampling of baselines by Optuna, in generations that are thinned out by successive halving.

Pure Python. Optuna is loaded where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.errors import UserError, one_of
from keras_effnet.search.baseline_space import BaselineSpace

SAMPLERS = ("tpe", "nsga2")
WEIGHT = -0.07  # exponent of the cost in the reward, as published
_LEAST, _MOST = 0.5, 1.25  # MACs of candidates as a multiple of the reference's
_TRIES = 2000  # draws for one candidate within these bounds


@dataclass(frozen=True)
class Scored:
    """A candidate with its result.

    Args:
        spec: `ArchitectureSpec`; its name is that of the candidate.
        cost: Float, in the unit of the budget.
        accuracy: Float in [0, 1], validation accuracy after `epochs`.
        epochs: Int, its longest training.
        reward: Float, see `reward`.
    """

    spec: ArchitectureSpec
    cost: float
    accuracy: float
    epochs: int
    reward: float


def reward(accuracy: float, cost: float, budget: float) -> float:
    """Accuracy * (cost / budget) ** -0.07: twice the cost is worth 5% of the accuracy.

    Source: MnasNet, Tan et al. (CVPR 2019), section 3; EfficientNet (ICML 2019), section 4.
    """
    return accuracy * (cost / budget) ** WEIGHT


@dataclass(frozen=True)
class Generations:
    """Extent of a search.

    Args:
        count: Int, candidates in all, with the baseline itself.
        size: Int, candidates that are drawn and compared together.
        rungs: Sequence of ints, epochs after which a generation is thinned out.
        reduction: Int, one candidate in so many continues.
        sampler: `"tpe"` maximizes the reward, `"nsga2"` looks for the front of accuracy and cost.
        seed: Int.
    """

    count: int
    size: int
    rungs: Sequence[int]
    reduction: int = 3
    sampler: str = "tpe"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("sampler", self.sampler, SAMPLERS)
        if self.size < 2 or self.count < self.size or self.reduction < 2:
            raise UserError(
                "A search of baselines needs a generation of 2 candidates or more, and a reduction of 2 or more; got "
                f"{self.count} candidates in generations of {self.size}, and a reduction of {self.reduction}."
            )


Train = Callable[[Sequence[ArchitectureSpec], int], Mapping[str, float]]
Price = Callable[[Sequence[ArchitectureSpec]], Mapping[str, float]]


def search_generations(
    space: BaselineSpace,
    extent: Generations,
    macs: Callable[[ArchitectureSpec], int],
    budget: Callable[[float], float],
    price: Price,
    train: Train,
) -> list[Scored]:
    """Draw, train and thin out candidates, generation by generation; the first candidate is the baseline itself.

    Everything follows from the seed and the results, so a search that is repeated with the stored results of an
    interrupted one asks for the same candidates.

    Args:
        space: `BaselineSpace`.
        extent: `Generations`.
        macs: Function that counts a network's MACs; candidates have about those of the baseline.
        budget: Function from the baseline's cost to the budget.
        price: Function from networks to the costs of those that could be priced, by name.
        train: Function that trains networks up to a number of epochs and returns the validation accuracy of those that
            did not fail, by name.

    Returns:
        List of `Scored`, in the order in which they were drawn.
    """
    found: dict[str, Scored] = {}
    study, limit = _study(extent), None
    reference = macs(space.spec(space.own))
    study.enqueue_trial(space.own)
    for first in range(0, extent.count, extent.size):
        drawn = [_drawn(study, space, macs, reference) for _ in range(min(extent.size, extent.count - first))]
        new = list({spec.name: spec for _, spec in drawn if spec.name not in found}.values())
        costs = price(new)
        limit = budget(costs[new[0].name]) if limit is None else limit  # the baseline is drawn first
        found |= _halved([spec for spec in new if spec.name in costs], costs, limit, extent, train)
        for trial, spec in drawn:
            _tell(study, trial, found.get(spec.name), extent.sampler)
    return list(found.values())


def _study(extent: Generations) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if extent.sampler == "tpe":
        sampler: Any = optuna.samplers.TPESampler(seed=extent.seed, n_startup_trials=extent.size)
        return optuna.create_study(direction="maximize", sampler=sampler)
    sampler = optuna.samplers.NSGAIISampler(seed=extent.seed, population_size=extent.size)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def _drawn(study: Any, space: BaselineSpace, macs: Callable[[ArchitectureSpec], int], reference: int) -> Any:
    """A trial of Optuna and its network, with about the MACs of the reference."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState

    entries = {name: CategoricalDistribution(values) for name, values in space.choices.items()}
    for _ in range(_TRIES):
        trial = study.ask(entries)
        spec = space.spec(trial.params)
        if _LEAST <= macs(spec) / reference <= _MOST:
            return trial, spec
        study.tell(trial, state=TrialState.FAIL)
    raise UserError(f"None of {_TRIES} networks had between {_LEAST:g} and {_MOST:g} times the baseline's MACs.")


def _halved(
    alive: Sequence[ArchitectureSpec], costs: Mapping[str, float], limit: float, extent: Generations, train: Train
) -> dict[str, Scored]:
    """Train a generation up to each rung, from which the best candidates continue."""
    scored: dict[str, Scored] = {}
    for epochs in extent.rungs:
        accuracies = train(alive, epochs)
        now = [
            Scored(spec, costs[spec.name], accuracies[spec.name], epochs, reward(accuracies[spec.name], cost, limit))
            for spec in alive
            if spec.name in accuracies and (cost := costs[spec.name])
        ]
        scored |= {each.spec.name: each for each in now}
        alive = [each.spec for each in ordered(now, extent.sampler)[: math.ceil(len(now) / extent.reduction)]]
    return scored


def ordered(candidates: Sequence[Scored], sampler: str) -> list[Scored]:
    """Candidates from the best: by reward, or for the front by how many others are better in both respects."""
    if sampler == "tpe":
        return sorted(candidates, key=lambda each: -each.reward)
    return sorted(candidates, key=lambda each: (sum(_dominates(o, each) for o in candidates), -each.reward))


def _dominates(one: Scored, other: Scored) -> bool:
    """Whether a candidate is at least as accurate and as cheap as another, and better in one of the two."""
    gains = (one.accuracy - other.accuracy, other.cost - one.cost)
    return min(gains) >= 0 and max(gains) > 0


def _tell(study: Any, trial: Any, result: Scored | None, sampler: str) -> None:
    from optuna.trial import TrialState

    if result is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, result.reward if sampler == "tpe" else [result.accuracy, result.cost])
