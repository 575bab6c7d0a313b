"""Search for a baseline: a stage table that is better than a given one at the same cost. TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.architecture.yaml_files import write_spec
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError
from keras_effnet.search.arguments import save_baseline_arguments
from keras_effnet.search.baseline_halving import Generations, Scored, ordered, reward, search_generations
from keras_effnet.search.baseline_space import BaselineSpace
from keras_effnet.search.halving import check_installed
from keras_effnet.study.costs import measure_latencies
from keras_effnet.study.executors import Submit, engine
from keras_effnet.study.measurement.held_out import trial_folder
from keras_effnet.study.networks import FAMILY, Member, resolved_name
from keras_effnet.study.plan import Plan, begin, prepare
from keras_effnet.study.protocol import Budget
from keras_effnet.study.recommendation import CostLimit
from keras_effnet.study.results import RESULTS_JSONL, kept_results, read_results
from keras_effnet.study.scheduler import StudyProgress, killed, run_trials
from keras_effnet.study.statistics.comparisons import compare, in_words, judged
from keras_effnet.study.statistics.looks import growing
from keras_effnet.study.summary import OverSeeds
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system import jsonl
from keras_effnet.system.files import atomic_group, make_folder

COSTS = ("macs", "tflite_ms")


@dataclass(frozen=True)
class Finalist(OverSeeds):
    """A network that was trained to the end with all seeds.

    Args:
        spec: `ArchitectureSpec`.
        cost: Float, in the unit of the budget.
        accuracies: Tuple of floats, validation accuracy of each seed, by which finalists are ranked.
        tested: Mapping, seed to accuracy on the test images; empty where the data have none.
        images: Int or None, number of test images.
        reward: Float, of the mean validation accuracy.
    """

    spec: ArchitectureSpec
    cost: float
    accuracies: tuple[float, ...]
    tested: Mapping[int, float]
    images: int | None
    reward: float


@dataclass(frozen=True)
class BaselineResult:
    """Result of a search for a baseline.

    Args:
        folder: Path, with `results.jsonl` and the finalists as `found/1.yaml`, `found/2.yaml`, ..., best first.
        reference: `Finalist`, the baseline that was given.
        ranking: List of `Finalist`s, best first, without the reference.
        tried: List of `Scored`, all candidates.
        budget: `CostLimit`.
        failures: Mapping, failed training to its error in one line.
    """

    folder: Path
    reference: Finalist
    ranking: list[Finalist]
    tried: list[Scored]
    budget: CostLimit
    failures: Mapping[str, str]

    @property
    def answer(self) -> str:
        """Whether the best network beats the baseline, on the images by which it was not chosen."""
        if not self.ranking:
            return "No candidate was better than the baseline in the search."
        best, own = self.ranking[0], self.reference
        costs = f"at x{best.cost / own.cost:.2f} the cost"
        held_out, kind = [dict(each.tested) for each in (own, best)], "test"
        if not all(held_out):
            held_out, kind = [dict(enumerate(each.accuracies)) for each in (own, best)], "validation"
        found = compare("the baseline", "the best network found", held_out, own.images)
        if found is None:
            return "The best network and the baseline have no seed in common."
        (verdict,) = judged([found])
        return f"On {kind} images, {costs}, {in_words(verdict)}."


def baseline_search(
    data: str | Mapping[str, Any],
    folder: str | Path,
    *,
    baseline: str = "b0",
    cost: str = "macs",
    budget: float | None = None,
    sampler: str = "tpe",
    candidates: int = 24,
    generation: int = 8,
    image_size: int = 48,
    epochs: int = 9,
    first: int = 1,
    reduction: int = 3,
    finalists: int = 2,
    seeds: int = 3,
    options: Mapping[str, Any] | None = None,
    threads: int = 0,
    workers: int = 1,
    cluster: str | None = None,
    progress: StudyProgress = lambda text, done, total: None,
) -> BaselineResult:
    """Search stage tables for a network that beats a baseline at its cost.

    Optuna draws generations of candidates with about the baseline's MACs; each generation is thinned out by successive
    halving of short trainings. The best candidates and the baseline are trained with all seeds. An interrupted search
    is resumed from its folder, and no training is repeated.

    Args:
        data: Source for `datasets.load`, or a mapping of its arguments.
        folder: Folder of the search; an existing one is resumed.
        baseline: String, a network's name or YAML file, of MBConv or Fused-MBConv stages.
        cost: `"macs"`, counted, or `"tflite_ms"`, measured on this machine in one thread.
        budget: Float, cost at which the reward is the accuracy; default: the baseline's.
        sampler: `"tpe"`, for the reward accuracy * (cost / budget) ** -0.07, or `"nsga2"`, for the front of both.
        candidates, generation: Ints, candidates in all and those that are compared together.
        image_size: Int, input size in pixels.
        epochs, first, reduction, seeds, options, threads, workers, cluster, progress: As in `grid_search`.
        finalists: Int, number of candidates that are trained with all seeds.

    Returns:
        A `BaselineResult`.

    Raises:
        UserError: Optuna is not installed, a number is out of range, or as `study.run` raises.

    Example:

    >>> from keras_effnet import search
    >>> search.baseline_search("digits-cluttered", "runs/search/digits-baseline", cost="tflite_ms").answer

    Source: MnasNet, Tan et al. (CVPR 2019); EfficientNet (ICML 2019), section 4.
    """
    check_installed()
    if not 1 <= first <= epochs or min(finalists, seeds) < 1:
        raise UserError("A search needs 1 <= first <= epochs, one finalist and one seed.")
    extent = Generations(candidates, generation, growing(first, epochs, reduction), reduction, sampler)
    baseline = resolved_name(baseline)
    stem = {name: value for name, value in (options or {}).items() if name == "stem_stride"}
    space = BaselineSpace(architecture_spec(baseline, image_size=image_size, **stem))
    progress("Loading the data", 0, 1)
    reference = Member("baseline", FAMILY, 0.0, baseline, base_size=image_size)
    plan, dataset = prepare(data, [reference], seeds, budget=Budget("epochs", epochs), options=options, threads=threads)
    folder = Path(folder)
    with begin(folder, plan, dataset), engine(workers, cluster) as submit, kept_results(folder):
        own = {"baseline": baseline, "cost": cost, "budget": budget, "sampler": sampler, "candidates": candidates}
        own |= {"generation": generation, "image_size": image_size, "epochs": epochs, "first": first}
        save_baseline_arguments(folder, own | {"reduction": reduction, "finalists": finalists, "seeds": seeds})
        own_spec = space.spec(space.own)
        trials = _Trials(folder, plan, len(dataset.class_names), epochs, cost, own_spec, submit, progress)
        limits: list[CostLimit] = []

        def limit(reference_cost: float) -> float:
            limits.append(CostLimit(cost, budget or reference_cost))
            return limits[0].amount

        found = search_generations(space, extent, trials.macs, limit, trials.price, trials.train)
        if not found:
            raise UserError(f"Every training failed; the first, {next(iter(trials.failures.items()), '')}.")
        complete = [each for each in found if each.epochs == epochs and each.spec.name != own_spec.name]
        best = ordered(complete, sampler)[:finalists]
        known = next((each for each in found if each.spec.name == own_spec.name), found[0])
        ranked = trials.ranked([known, *best], range(seeds), limits[0])
        _write_found([each.spec for each in ranked[1:]], folder / "found")
    return BaselineResult(folder, ranked[0], ranked[1:], found, limits[0], trials.failures)


class _Trials:
    """Trainings and latencies of candidates, kept in a search's `results.jsonl`."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        classes: int,
        epochs: int,
        cost: str,
        reference: ArchitectureSpec,
        submit: Submit,
        progress: StudyProgress,
    ):
        self.folder, self.plan, self.classes, self.epochs, self.cost = folder, plan, classes, epochs, cost
        self.reference = reference
        self.submit, self.progress = submit, progress
        self.failures: dict[str, str] = {}

    def macs(self, spec: ArchitectureSpec) -> int:
        """Counted MACs of an image."""
        return count(spec, classes=self.classes).macs

    def price(self, specs: Sequence[ArchitectureSpec]) -> dict[str, float]:
        """Costs of networks, by name; each latency is measured once.

        Networks that are priced together are timed in turn, and with them the baseline: other load on the machine,
        which is another one for each generation, slows it down as much as them.
        """
        if self.cost == "macs":
            return {spec.name: float(self.macs(spec)) for spec in specs}
        known = {row["member"]: row["tflite_ms"] for row in self._rows("latency")}
        new = [spec for spec in specs if spec.name not in known]
        if new:
            self.progress("Measuring latencies", 0, 1)
            timed = list({spec.name: spec for spec in (self.reference, *new)}.values())
            work = self.submit(measure_latencies, self.plan.protocol, self._members(timed), self.classes)
            try:
                measured = dict(zip([spec.name for spec in timed], work.result(), strict=True))
            except BrokenProcessPool:
                raise killed(self.folder, "measuring latencies") from None
            own = measured[self.reference.name]
            slower = own / known.get(self.reference.name, own)
            for spec in new:
                known[spec.name] = round(measured[spec.name] / slower, 4)
                row = {"kind": "latency", "member": spec.name, "tflite_ms": known[spec.name]}
                jsonl.append(self.folder / RESULTS_JSONL, row)
        return {spec.name: known[spec.name] for spec in specs}

    def train(self, specs: Sequence[ArchitectureSpec], until: int) -> dict[str, float]:
        """Train networks with the first seed up to a number of epochs; validation accuracies by name."""
        self._run(specs, [0], until)
        rows = [row for row in self._rows("training") if row["seed"] == 0 and row["epochs"] == until]
        accuracies = {row["member"]: row["accuracy"] for row in rows}
        return {spec.name: accuracies[spec.name] for spec in specs if spec.name in accuracies}

    def ranked(self, chosen: Sequence[Scored], seeds: Sequence[int], budget: CostLimit) -> list[Finalist]:
        """Train networks with all seeds to the end: the first one, and the others by decreasing reward."""
        self._run([each.spec for each in chosen], seeds, self.epochs)
        rows = [row for row in self._rows("training") if row["epochs"] == self.epochs]
        found = []
        for each in chosen:
            runs = sorted((row for row in rows if row["member"] == each.spec.name), key=lambda row: row["seed"])
            if not runs:
                raise UserError(f"{each.spec.name} could not be trained, see {self.folder / RESULTS_JSONL}.")
            accuracies = tuple(row["accuracy"] for row in runs)
            tested = {row["seed"]: row["test_accuracy"] for row in runs if "test_accuracy" in row}
            value = reward(sum(accuracies) / len(accuracies), each.cost, budget.amount)
            images = runs[0].get("test_images") if tested else runs[0]["val_images"]
            found.append(Finalist(each.spec, each.cost, accuracies, tested, images, value))
        return [found[0], *sorted(found[1:], key=lambda each: -each.reward)]

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in read_results(self.folder) if row["kind"] == kind]

    def _members(self, specs: Sequence[ArchitectureSpec]) -> list[Member]:
        """Networks as files, which training and export read."""
        folder = self.folder / "candidates"
        make_folder(folder)
        for spec in specs:
            write_spec(spec, folder / f"{spec.name}.yaml")
        return [
            Member(spec.name, FAMILY, 0.0, str((folder / f"{spec.name}.yaml").resolve()), base_size=spec.image_size)
            for spec in specs
        ]

    def _run(self, specs: Sequence[ArchitectureSpec], seeds: Sequence[int], until: int) -> None:
        study = self.folder.resolve()
        places = {(each, seed): trial_folder(study, each.name, seed) for seed in seeds for each in self._members(specs)}
        trials = [
            TrainingRun(self.plan.protocol, each, seed, self.epochs, str(place), until, str(study))
            for (each, seed), place in places.items()
        ]
        self.failures |= run_trials(self.folder, trials, self.submit, self.progress)


def _write_found(specs: Sequence[ArchitectureSpec], folder: Path) -> None:
    with atomic_group(folder) as staged:
        for place, spec in enumerate(specs, start=1):
            write_spec(spec, staged / f"{place}.yaml")
