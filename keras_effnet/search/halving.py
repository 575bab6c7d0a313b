"""The search for alpha, beta, gamma: candidates at phi = 1 are trained shortly, the best of them longer, with seeds.

Optuna decides which are worth more epochs. Imports `search_grid`, `plans`, `runner`, `trials`, `engines`, `spec_files`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.yaml_files import write_spec
from keras_effnet.errors import UserError
from keras_effnet.search.grid import ScalingCandidate, candidates, networks
from keras_effnet.study.executors import engine
from keras_effnet.study.networks import Member, resolved_name
from keras_effnet.study.plan import RESULTS_JSONL, Plan, begin, prepare
from keras_effnet.study.protocol import Budget
from keras_effnet.study.scheduler import Progress, Row, run_trials
from keras_effnet.study.summary import OverSeeds
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system import jsonl
from keras_effnet.system.files import write_text

ARGUMENTS = "search.yaml"


@dataclass(frozen=True)
class Ranked(OverSeeds):
    """A candidate after training.

    Args:
        candidate: `ScalingCandidate`, the first of those that round to the same network.
        same: Tuple of `CompoundScaling`, all constants that make this network, its own among them.
        epochs: Int, the most that it was trained for.
        accuracies: Tuple of floats, validation accuracy after them, by seed.
    """

    candidate: ScalingCandidate
    same: tuple[CompoundScaling, ...]
    epochs: int
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        folder: Path, with `results.jsonl`, and `family/phi0.yaml` to `phi7.yaml` of the best constants.
        ranking: List of `Ranked`: those trained longest and with most seeds first, by mean accuracy.
        failures: Mapping of trial -> what went wrong.
    """

    folder: Path
    ranking: list[Ranked]
    failures: Mapping[str, str]

    @property
    def best(self) -> CompoundScaling:
        """The constants ranked first."""
        return self.ranking[0].candidate.scaling

    @property
    def tied(self) -> list[Ranked]:
        """Finalists that the seeds do not tell from the best: nearer than twice the standard error of the difference.

        Only those trained as long and as often. With one seed a search cannot know, and none of them is told apart.
        """
        best = self.ranking[0]
        alike = (best.epochs, len(best.accuracies))
        first, *others = (each for each in self.ranking if (each.epochs, len(each.accuracies)) == alike)
        return [other for other in others if _within_noise(first, other)]


def _within_noise(first: Ranked, other: Ranked) -> bool:
    if first.spread is None or other.spread is None:
        return True
    error = math.hypot(first.spread, other.spread) / math.sqrt(len(first.accuracies))
    return first.accuracy - other.accuracy <= 2 * error


def member(candidate: ScalingCandidate, baseline: str, image_size: int) -> Member:
    """The network of a candidate, for training."""
    scaling = candidate.scaling
    name = f"{Path(baseline).stem}-a{scaling.alpha:g}-b{scaling.beta:g}-g{scaling.gamma:g}"
    return Member(name, "compound", 1.0, baseline, scaling.alpha, scaling.beta, scaling.gamma, image_size)


def rungs(first: int, last: int, reduction: int) -> list[int]:
    """Epochs after which candidates are compared: `first`, and times `reduction` until `last`.

    >>> rungs(1, 9, 3)
    [1, 3, 9]
    """
    steps = [first]
    while steps[-1] * reduction < last:
        steps.append(steps[-1] * reduction)
    return [*steps, last] if steps[-1] < last else [last]


def grid_search(
    data: str | Mapping[str, Any],
    folder: str | Path,
    *,
    baseline: str = "b0",
    target: float = 2.0,
    step: float = 0.1,
    tolerance: float = 0.05,
    by: str = "macs",
    image_size: int = 48,
    epochs: int = 9,
    first: int = 1,
    reduction: int = 3,
    finalists: int = 3,
    seeds: int = 3,
    options: Mapping[str, Any] | None = None,
    threads: int = 0,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress = lambda text, done, total: None,
) -> SearchResult:
    """Searches the constants of compound scaling for a baseline, by short trainings.

    All candidates are trained for `first` epochs, the better third of them three times as long, and so on, by Optuna's
    asynchronous successive halving. The best that reach the end are trained again with other seeds. A search that was
    killed goes on in its folder; no training is repeated.

    Args:
        data: What `datasets.load` takes, or a mapping of its arguments.
        folder: Folder of the search; one that exists is gone on with.
        baseline: A network's name or a YAML file of one.
        target, step, tolerance, by: The grid and its constraint, see `search_grid.candidates`.
        image_size: Int, side of the baseline's input in pixels.
        epochs: Int, the longest training; its schedule is made for all.
        first: Int, epochs after which candidates are compared first.
        reduction: Int, one of so many goes on from each comparison, and for so many times longer.
        finalists: Int, how many are trained with all seeds.
        seeds: Int, trainings of each finalist.
        options: Mapping of `TrainConfig` options that all trainings share.
        threads, workers, cluster, progress: As in `study.run`.

    Returns:
        A `SearchResult`.

    Raises:
        UserError: A grid on which nothing meets the constraint, Optuna is not installed, or what `study.run` raises.

    Example:

    >>> from keras_effnet import search
    >>> search.grid_search("digits-cluttered", "runs/search/digits", baseline="lite0").best

    Source: EfficientNet (ICML 2019), section 3.3; successive halving, Li et al., ASHA (MLSys 2020).
    """
    _check_installed()
    if not 1 <= first <= epochs or reduction < 2 or min(finalists, seeds) < 1:
        raise UserError("A search needs 1 <= first <= epochs, a reduction of 2 or more, one finalist and one seed.")
    baseline = resolved_name(baseline)
    grid = {"target": target, "step": step, "tolerance": tolerance, "by": by, "image_size": image_size}
    lengths = {"epochs": epochs, "first": first, "reduction": reduction, "finalists": finalists, "seeds": seeds}
    found = candidates(baseline, target=target, step=step, tolerance=tolerance, by=by, image_size=image_size)
    groups = {member(group[0], baseline, image_size): group for group in networks(found)}
    progress("Looking at the data", 0, 1)
    plan, _ = prepare(data, list(groups), seeds, budget=Budget("epochs", epochs), options=options, threads=threads)
    protocol, folder = plan.protocol, Path(folder)
    with begin(folder, plan), engine(workers, cluster) as submit:
        write_text(folder / ARGUMENTS, yaml.safe_dump({"baseline": baseline, **grid, **lengths}, sort_keys=False))
        halving = _Halving(rungs(first, epochs, reduction), reduction)

        def trials(members: Iterable[Member], seeds: Iterable[int], until: int) -> list[TrainingRun]:
            places = {(each, seed): folder / "trials" / each.name / f"seed{seed}" for seed in seeds for each in members}
            return [
                TrainingRun(protocol, each, seed, epochs, str(place.resolve()), until)
                for (each, seed), place in places.items()
            ]

        failures = run_trials(folder, trials(groups, [0], halving.rungs[0]), submit, progress, halving.follow)
        best = halving.best(finalists)
        failures |= run_trials(folder, trials(best, range(1, seeds), epochs), submit, progress)
        rows = jsonl.read(folder / RESULTS_JSONL)
    ranking = rank(rows, groups)
    if not ranking:
        name, why = next(iter(failures.items()))
        raise UserError(f"No training came to its end; the first, {name}: {why}")
    result = SearchResult(folder, ranking, failures)
    write_family(result.best, baseline, folder / "family")
    return result


def kept_arguments(folder: Path) -> dict[str, Any]:
    """Arguments with which `grid_search` goes on in the folder of an earlier search.

    Raises:
        UserError: It is no search's, or damaged.
    """
    path = folder / ARGUMENTS
    if not path.is_file():
        raise UserError(f"{folder} is no search: it has no {ARGUMENTS}.")
    shared = {name: value for name, value in Plan.read(folder).protocol.arguments.items() if name != "budget"}
    try:
        return {**shared, **yaml.safe_load(path.read_text(encoding="utf-8"))}
    except (yaml.YAMLError, TypeError):
        raise UserError(f"{path} is damaged. Start the search anew.") from None


def _check_installed() -> None:
    if find_spec("optuna") is None:
        raise UserError("The search needs an extra: pip install 'keras-effnet[study]'.")


class _Halving:
    """Decides, by Optuna's successive halving, which candidate is trained on after a rung."""

    def __init__(self, rungs: Sequence[int], reduction: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.rungs = rungs
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=reduction)
        self._study = optuna.create_study(direction="maximize", pruner=pruner)
        self._asked: dict[str, Any] = {}
        self._finished: list[tuple[float, Member]] = []

    def follow(self, trial: TrainingRun, row: Row) -> TrainingRun | None:
        """The same training with more epochs, if it is worth them."""
        from optuna.trial import TrialState

        if trial.member.name not in self._asked:
            self._asked[trial.member.name] = self._study.ask()
        asked = self._asked[trial.member.name]
        asked.report(row["accuracy"], step=trial.target)
        if trial.target == self.rungs[-1]:
            self._finished.append((row["accuracy"], trial.member))
            self._study.tell(asked, row["accuracy"])
        elif asked.should_prune():
            self._study.tell(asked, state=TrialState.PRUNED)
        else:
            return replace(trial, until=self.rungs[self.rungs.index(trial.target) + 1])
        return None

    def best(self, count: int) -> list[Member]:
        """Of those that came to the last rung."""
        return [member for _, member in sorted(self._finished, key=lambda pair: -pair[0])[:count]]


def rank(rows: Iterable[Row], groups: Mapping[Member, Sequence[ScalingCandidate]]) -> list[Ranked]:
    """Candidates by what they reached: more epochs before fewer, more seeds before one, then by mean accuracy."""
    ranking = []
    for each, group in groups.items():
        runs = [row for row in rows if row["kind"] == "training" and row["member"] == each.name]
        if not runs:
            continue
        epochs = max(run["epochs"] for run in runs)
        last = sorted((run for run in runs if run["epochs"] == epochs), key=lambda run: run["seed"])
        constants = tuple(candidate.scaling for candidate in group)
        ranking.append(Ranked(group[0], constants, epochs, tuple(run["accuracy"] for run in last)))
    return sorted(ranking, key=lambda each: (-each.epochs, -len(each.accuracies), -each.accuracy))


def write_family(scaling: CompoundScaling, baseline: str, folder: Path, phis: Sequence[int] = range(8)) -> list[Path]:
    """Writes the networks that constants make of a baseline, at its own resolution, as YAML files `phi0.yaml`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    base, paths = architecture_spec(baseline), []
    for phi in phis:
        factors = scaling.factors(phi)
        spec = base.scaled(factors.depth, factors.width, factors.resolution)
        paths.append(folder / f"phi{phi}.yaml")
        write_spec(replace(spec, name=f"{base.name}-phi{phi}"), paths[-1])
    return paths
