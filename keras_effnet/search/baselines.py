"""Search for a baseline: a stage table that is better than a given one at the same cost. TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.architecture.yaml_files import write_spec
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError
from keras_effnet.search.arguments import BaselineArguments, save_arguments
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
from keras_effnet.study.scheduler import TrainingArguments, killed, run_trials
from keras_effnet.study.statistics.comparisons import compare, in_words, judged
from keras_effnet.study.statistics.looks import growing
from keras_effnet.study.summary import OverSeeds
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system import jsonl
from keras_effnet.system.files import atomic_group, make_folder
from keras_effnet.system.typed_values import called_with

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


@dataclass(frozen=True)
class BaselineSearchArguments(BaselineArguments, TrainingArguments):
    """Arguments of `baseline_search`."""

    data: str | Mapping[str, Any]
    folder: str | Path


@called_with(BaselineSearchArguments)
def baseline_search(given: BaselineSearchArguments) -> BaselineResult:
    """Search stage tables for a network that beats a baseline at its cost.

    Optuna draws generations of candidates with about the baseline's MACs; each generation is thinned out by successive
    halving of short trainings. The best candidates and the baseline are trained with all seeds. An interrupted search
    is resumed from its folder, and no training is repeated.

    Args:
        data: Source for `datasets.load`, or a mapping of its arguments.
        folder: Folder of the search; an existing one is resumed.
        cost: `"macs"`, counted, or `"tflite_ms"`, measured on this machine in one thread.
        budget: Float, cost at which the reward is the accuracy; default: the baseline's.
        sampler: `"tpe"`, for the reward accuracy * (cost / budget) ** -0.07, or `"nsga2"`, for the front of both.
        candidates, generation: Ints, candidates in all and those that are compared together.
        baseline: String, a network's name or YAML file, of MBConv or Fused-MBConv stages.
        image_size, epochs, first, reduction, finalists, seeds: See `HalvingArguments`.
        options, threads, workers, cluster, progress: See `study.TrainingArguments`.

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
    extent = Generations(
        *(given.candidates, given.generation, growing(given.first, given.epochs, given.reduction)),
        *(given.reduction, given.sampler),
    )
    given = replace(given, baseline=resolved_name(given.baseline))
    stem = {name: value for name, value in (given.options or {}).items() if name == "stem_stride"}
    space = BaselineSpace(architecture_spec(given.baseline, image_size=given.image_size, **stem))
    given.progress("Loading the data", 0, 1)
    reference = Member("baseline", FAMILY, 0.0, given.baseline, base_size=given.image_size)
    longest = Budget("epochs", given.epochs)
    plan, dataset = prepare(
        given.data, [reference], given.seeds, budget=longest, options=given.options, threads=given.threads
    )
    folder = Path(given.folder)
    with begin(folder, plan, dataset), engine(given.workers, given.cluster) as submit, kept_results(folder):
        save_arguments(folder, given)
        own_spec = space.spec(space.own)
        trials = _Trials(given, folder, plan, len(dataset.class_names), own_spec, submit)
        limits: list[CostLimit] = []

        def limit(reference_cost: float) -> float:
            limits.append(CostLimit(given.cost, given.budget or reference_cost))
            return limits[0].amount

        found = search_generations(space, extent, trials.macs, limit, trials.price, trials.train)
        if not found:
            raise UserError(f"Every training failed; the first, {next(iter(trials.failures.items()), '')}.")
        complete = [each for each in found if each.epochs == given.epochs and each.spec.name != own_spec.name]
        best = ordered(complete, given.sampler)[: given.finalists]
        known = next((each for each in found if each.spec.name == own_spec.name), found[0])
        ranked = trials.ranked([known, *best], range(given.seeds), limits[0])
        _write_found([each.spec for each in ranked[1:]], folder / "found")
    return BaselineResult(folder, ranked[0], ranked[1:], found, limits[0], trials.failures)


class _Trials:
    """Trainings and latencies of candidates, kept in a search's `results.jsonl`."""

    def __init__(
        self,
        given: BaselineSearchArguments,
        folder: Path,
        plan: Plan,
        classes: int,
        reference: ArchitectureSpec,
        submit: Submit,
    ):
        self.folder, self.plan, self.classes, self.epochs, self.cost = folder, plan, classes, given.epochs, given.cost
        self.reference = reference
        self.submit, self.progress = submit, given.progress
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
