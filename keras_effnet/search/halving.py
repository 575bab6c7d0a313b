"""Search for the scaling constants alpha, beta, gamma by successive halving of short trainings.

Pure Python. Optuna is loaded where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.yaml_files import write_spec
from keras_effnet.errors import UserError
from keras_effnet.search.arguments import GridArguments, save_arguments
from keras_effnet.search.grid import ScalingCandidate, candidates, format_constants, networks
from keras_effnet.study.executors import engine
from keras_effnet.study.measurement.held_out import trial_folder
from keras_effnet.study.networks import Member, resolved_name
from keras_effnet.study.plan import begin, prepare
from keras_effnet.study.protocol import Budget
from keras_effnet.study.results import kept_results, read_results
from keras_effnet.study.scheduler import Row, TrainingArguments, run_trials
from keras_effnet.study.statistics.comparisons import Judged, basis, compare, in_words, judged
from keras_effnet.study.statistics.looks import growing
from keras_effnet.study.summary import OverSeeds
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system.files import atomic_group
from keras_effnet.system.typed_values import called_with


@dataclass(frozen=True)
class Ranked(OverSeeds):
    """A candidate with its training results.

    Args:
        candidate: `ScalingCandidate`, the first of those that round to the same network.
        same: Tuple of `CompoundScaling`, all constants that round to this network, including its own.
        epochs: Int, its longest training.
        accuracies: Tuple of floats, validation accuracy after that many epochs, by seed.
        tested: Tuple of floats, accuracy on the test images, by seed; empty where it was not measured.
        images: Int or None, number of the images that report: test images, or else validation images.
        member: String, name of its network in `results.jsonl`.
    """

    candidate: ScalingCandidate
    same: tuple[CompoundScaling, ...]
    epochs: int
    accuracies: tuple[float, ...]
    tested: tuple[float, ...] = ()
    images: int | None = None
    member: str = ""

    @property
    def name(self) -> str:
        """Its constants, in parentheses."""
        return format_constants(self.candidate.scaling)

    @property
    def reported(self) -> dict[int, float]:
        """Accuracy of each seed on the images that did not rank it, where there are any."""
        return dict(enumerate(self.tested or self.accuracies))


@dataclass(frozen=True)
class SearchResult:
    """Results of a search.

    Args:
        folder: Path, with `results.jsonl`, and `family/phi0.yaml` to `phi7.yaml` of the best constants.
        ranking: List of `Ranked`, sorted by decreasing epochs, number of seeds and mean accuracy.
        failures: Mapping, failed training to its error in one line.
    """

    folder: Path
    ranking: list[Ranked]
    failures: Mapping[str, str]

    @property
    def best(self) -> CompoundScaling:
        """The constants ranked first."""
        return self.ranking[0].candidate.scaling

    @property
    def compared(self) -> list[tuple[Ranked, Judged]]:
        """The other finalists, each with the verdict on the best against it, judged together over paired seeds.

        Only candidates with as many epochs and seeds as the best are compared.
        """
        best, *others = self.ranking
        alike = [each for each in others if (each.epochs, len(each.accuracies)) == (best.epochs, len(best.accuracies))]
        pairs = [(each, compare(each.name, best.name, (each.reported, best.reported), best.images)) for each in alike]
        found = [(each, comparison) for each, comparison in pairs if comparison is not None]
        verdicts = judged([comparison for _, comparison in found])
        return [(each, verdict) for (each, _), verdict in zip(found, verdicts, strict=True)]

    @property
    def tied(self) -> list[Ranked]:
        """Finalists that are not found to be less accurate than the best; with one seed all of them."""
        return [each for each, verdict in self.compared if verdict.verdict != "more"]

    @property
    def answer(self) -> list[str]:
        """The best constants, on validation and test images, and their lead over each finalist with its interval."""
        best, compared = self.ranking[0], self.compared
        tested = f", {fmean(best.tested):.1%} on test images, by which nothing was chosen" if best.tested else ""
        lines = [f"Best: {best.name}, {best.accuracy:.1%} on the validation images that chose it{tested}."]
        lines += [f"{_against(each)}, {in_words(verdict)}." for each, verdict in compared]
        verdicts = [verdict for _, verdict in compared]
        return lines + [line for line in (basis(verdicts),) if line]


def _against(other: Ranked) -> str:
    return "Against the constants of the paper" if CompoundScaling() in other.same else "Against a finalist"


def member(candidate: ScalingCandidate, baseline: str, image_size: int) -> Member:
    """`Member` of a study that trains a candidate."""
    scaling = candidate.scaling
    name = f"{Path(baseline).stem}-a{scaling.alpha:g}-b{scaling.beta:g}-g{scaling.gamma:g}"
    return Member(name, "compound", 1.0, baseline, scaling.alpha, scaling.beta, scaling.gamma, image_size)


@dataclass(frozen=True)
class GridSearchArguments(GridArguments, TrainingArguments):
    """Arguments of `grid_search`."""

    data: str | Mapping[str, Any]
    folder: str | Path


@called_with(GridSearchArguments)
def grid_search(given: GridSearchArguments) -> SearchResult:
    """Search the compound scaling constants of a baseline by short trainings.

    All candidates are trained for `first` epochs, the best `1 / reduction` of them `reduction` times as long, and so
    on, by Optuna's asynchronous successive halving. The best candidates at the end, and the constants of the paper as
    the reference, are trained with all seeds.
    An interrupted search is resumed from its folder, and no training is repeated.

    Args:
        data: Source for `datasets.load`, or a mapping of its arguments.
        folder: Folder of the search; an existing one is resumed.
        target, step, tolerance, by: The grid and its constraint, see `search.candidates`.
        baseline, image_size, epochs, first, reduction, finalists, seeds: See `HalvingArguments`.
        options, threads, workers, cluster, progress: See `study.TrainingArguments`.

    Returns:
        A `SearchResult`.

    Raises:
        UserError: No point of the grid meets the constraint, Optuna is not installed, or as `study.run` raises.

    Example:

    >>> from keras_effnet import search
    >>> search.grid_search("digits-cluttered", "runs/search/digits", baseline="lite0").best

    Source: EfficientNet (ICML 2019), section 3.3; successive halving, Li et al., ASHA (MLSys 2020).
    """
    check_installed()
    progress, image_size = given.progress, given.image_size
    given = replace(given, baseline=resolved_name(given.baseline))
    stem = {name: value for name, value in (given.options or {}).items() if name == "stem_stride"}
    grid = {name: getattr(given, name) for name in ("target", "step", "tolerance", "by")}
    found = candidates(architecture_spec(given.baseline, **stem), **grid, image_size=image_size)
    groups = {member(group[0], given.baseline, image_size): group for group in networks(found)}
    progress("Loading the data", 0, 1)
    longest = Budget("epochs", given.epochs)
    plan, dataset = prepare(
        given.data, list(groups), given.seeds, budget=longest, options=given.options, threads=given.threads
    )
    protocol, folder = plan.protocol, Path(given.folder)
    with begin(folder, plan, dataset), engine(given.workers, given.cluster) as submit:
        save_arguments(folder, given)
        halving = _Halving(growing(given.first, given.epochs, given.reduction), given.reduction)

        def trials(members: Iterable[Member], seeds: Iterable[int], until: int) -> list[TrainingRun]:
            places = {(each, seed): trial_folder(folder, each.name, seed) for seed in seeds for each in members}
            return [
                TrainingRun(protocol, each, seed, given.epochs, str(place.resolve()), until, str(folder.resolve()))
                for (each, seed), place in places.items()
            ]

        failures = run_trials(folder, trials(groups, [0], halving.rungs[0]), submit, progress, halving.follow)
        chosen = [*halving.best(given.finalists), *(each for each, group in groups.items() if _is_papers(group))]
        chosen = list(dict.fromkeys(chosen))  # the constants of the paper are the reference, whatever their rank
        failures |= run_trials(folder, trials(chosen, range(given.seeds), given.epochs), submit, progress)
        rows = read_results(folder)
    ranking = rank(rows, groups)
    if not ranking:
        name, why = next(iter(failures.items()))
        raise UserError(f"Every training failed; the first, {name}: {why}")
    result = SearchResult(folder, ranking, failures)
    with kept_results(folder):
        write_family(result.best, given.baseline, folder / "family")
    return result


def _is_papers(group: Sequence[ScalingCandidate]) -> bool:
    return CompoundScaling() in [candidate.scaling for candidate in group]


def check_installed() -> None:
    """Refuse a search without Optuna.

    Raises:
        UserError: It is not installed.
    """
    if find_spec("optuna") is None:
        raise UserError("The search needs Optuna: pip install 'keras-effnet[search]'.")


class _Halving:
    """Successive halving by Optuna: decides which candidates continue after a rung."""

    def __init__(self, rungs: Sequence[int], reduction: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.rungs = rungs
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=reduction)
        self._study = optuna.create_study(direction="maximize", pruner=pruner)
        self._asked: dict[str, Any] = {}
        self._finished: list[tuple[float, Member]] = []

    def follow(self, trial: TrainingRun, row: Row) -> TrainingRun | None:
        """The same training up to the next rung, or None where it stops."""
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
        """The most accurate candidates that reached the last rung."""
        return [member for _, member in sorted(self._finished, key=lambda pair: -pair[0])[:count]]


def rank(rows: Iterable[Row], groups: Mapping[Member, Sequence[ScalingCandidate]]) -> list[Ranked]:
    """Rank candidates by decreasing epochs, number of seeds and mean accuracy."""
    ranking = []
    for each, group in groups.items():
        runs = [row for row in rows if row["kind"] == "training" and row["member"] == each.name]
        if not runs:
            continue
        epochs = max(run["epochs"] for run in runs)
        last = sorted((run for run in runs if run["epochs"] == epochs), key=lambda run: run["seed"])
        constants = tuple(candidate.scaling for candidate in group)
        accuracies = tuple(run["accuracy"] for run in last)
        tested = tuple(run["test_accuracy"] for run in last if "test_accuracy" in run)
        tested = tested if len(tested) == len(last) else ()
        images = last[0].get("test_images" if tested else "val_images")
        ranking.append(Ranked(group[0], constants, epochs, accuracies, tested, images, each.name))
    return sorted(ranking, key=lambda each: (-each.epochs, -len(each.accuracies), -each.accuracy))


def write_family(scaling: CompoundScaling, baseline: str, folder: Path, phis: Sequence[int] = range(8)) -> list[Path]:
    """Write a baseline, scaled by each phi from its own resolution, to YAML files `phi0.yaml`, ..."""
    base = architecture_spec(baseline)
    paths = {phi: folder / f"phi{phi}.yaml" for phi in phis}
    with atomic_group(folder) as staged:
        for phi, path in paths.items():
            factors = scaling.factors(phi)
            spec = base.scaled(factors.depth, factors.width, factors.resolution)
            write_spec(replace(spec, name=f"{base.name}-phi{phi}"), staged / path.name)
    return list(paths.values())
