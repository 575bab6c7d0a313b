"""Measure the costs of a study's networks in groups of a few, so that memory does not grow with their number.

Pure Python; TensorFlow is loaded in the processes that measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.config.run_record import is_path
from keras_effnet.study.costs import ROUNDS, measure_costs, measure_roofline
from keras_effnet.study.executors import Submit
from keras_effnet.study.networks import Member
from keras_effnet.study.plan import Plan
from keras_effnet.study.results import RESULTS_JSONL, read_results
from keras_effnet.study.scheduler import StudyProgress, killed
from keras_effnet.system import jsonl
from keras_effnet.system.portable_paths import portable_values

Row = Mapping[str, Any]

GROUP = 4  # networks in memory at a time, the reference included
_CLOCKS = ("step", "predict", "tflite")
_RATES = {"train_images_per_second": "step", "predict_images_per_second": "predict"}


def measured_costs(
    folder: Path, plan: Plan, classes: int, submit: Submit, progress: StudyProgress
) -> dict[str, dict[str, Any]]:
    """Measure the cost of each network and one roofline for each kind of network, unless an earlier run has.

    Each group of networks is timed in a process of its own and recorded when it is complete. The first network of the
    study is the reference: it is timed with every group, and the times of a group are divided by its slowdown since
    its own row was measured, so that other load affects all networks alike however many there are.

    Args:
        folder: Path of the study.
        plan: `Plan`.
        classes: Int, number of classes of the data.
        submit: Function from `executors.processes`.
        progress: Function that is called with a text, the steps completed and their number.

    Returns:
        Dict, name of each network to its row of kind `"cost"`.

    Raises:
        UserError: A process was killed, or the folder cannot be written.
    """
    rows = read_results(folder)
    costs = {row["member"]: row for row in rows if row["kind"] == "cost"}
    seen = {row["member"] for row in rows if row["kind"] == "roofline"}
    together = groups(plan.members, costs)
    kinds = [member for member in _first_of_each_kind(plan.members) if member.name not in seen]
    steps = _Steps(sum(len(group) + ROUNDS for group in together) + len(kinds), progress)

    def record(row: dict[str, Any]) -> None:
        (portable,), _ = portable_values([row], folder, is_path)
        jsonl.append(folder / RESULTS_JSONL, portable)

    def wait_for(doing: str, function: Callable[..., Any], *arguments: Any, **told: Any) -> Any:
        try:
            return submit(function, plan.protocol, *arguments, classes, **told).result()
        except BrokenProcessPool:
            raise killed(folder, doing) from None

    for group in together:
        names = ", ".join(member.name for member in group)
        reference, *found = wait_for(f"measuring {names}", measure_costs, group, told=steps.told)
        known = costs.setdefault(reference["member"], reference)
        if known is reference:
            record(reference)
        for row in found:
            costs[row["member"]] = as_beside(known, reference, row)
            record(costs[row["member"]])
        steps.completed(len(group) + ROUNDS)
    for member in kinds:
        steps.told(f"Measuring layers of {member.name}", 0)
        record(wait_for(f"measuring layers of {member.name}", measure_roofline, member))
        steps.completed(1)
    return costs


@dataclass
class _Steps:
    """Steps of all measurements completed so far."""

    total: int
    progress: StudyProgress
    before: int = 0

    def told(self, text: str, done: int) -> None:
        self.progress(text, self.before + done, self.total)

    def completed(self, steps: int) -> None:
        self.before += steps


def groups(members: Sequence[Member], known: Mapping[str, Row]) -> list[list[Member]]:
    """Groups of the networks whose cost is unknown, each led by the first network of the study.

    Args:
        members: `Member`s of the study.
        known: Mapping whose keys are the names of networks that were measured.
    """
    reference, *others = members
    new = [member for member in others if member.name not in known]
    found = [[reference, *new[start : start + GROUP - 1]] for start in range(0, len(new), GROUP - 1)]
    return found or [[reference]] * (reference.name not in known)


def as_beside(known: Row, reference: Row, row: Row) -> dict[str, Any]:
    """Row of a network with the times that it would have had when the reference had those of `known`.

    Args:
        known: Mapping, row of the reference as it is recorded.
        reference: Mapping, its row of the measurement that `row` is of.
        row: Mapping.

    Returns:
        `row`, divided by the slowdown of the reference. Times of another processor or of another number of threads are
        not comparable and stay as they are.
    """
    if known is reference or any(known.get(name) != row[name] for name in ("cpu", "cores", "threads")):
        return dict(row)
    slowdown = {clock: reference[f"{clock}_ms"] / known[f"{clock}_ms"] for clock in _CLOCKS}
    times = {f"{clock}_{kind}": slower for clock, slower in slowdown.items() for kind in ("ms", "iqr_ms")}
    changed = {name: round(row[name] / slower, 4) for name, slower in times.items()}
    changed |= {name: round(row[name] * slowdown[clock], 2) for name, clock in _RATES.items()}
    return {**row, **changed, "slowdown": {clock: round(slower, 3) for clock, slower in slowdown.items()}}


def _first_of_each_kind(members: Sequence[Member]) -> list[Member]:
    """The first classifier of each kind: networks with the same block type differ only in size."""
    first: dict[tuple[str, bool], Member] = {}
    for member in (each for each in members if not each.detects):
        stage = architecture_spec(member.model).stages[0]
        first.setdefault((stage.block, stage.se_ratio > 0), member)
    return list(first.values())
