"""Equal time for every network: its pace is measured with as many trainings at once as the study will run.

Pure Python; TensorFlow is loaded in the processes that measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.study.adaptive.pace import measure_pace, pace_row
from keras_effnet.study.executors import Submit
from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Pace, Protocol
from keras_effnet.study.results import RESULTS_JSONL, read_results
from keras_effnet.study.scheduler import StudyProgress, killed
from keras_effnet.system import jsonl

_UNUSED = 0.1  # share of the time that whole epochs may leave unused before it is said


def measured_paces(
    folder: Path,
    protocol: Protocol,
    members: Sequence[Member],
    costs: Mapping[str, Mapping[str, Any]],
    submit: Submit,
    workers: int,
    progress: StudyProgress,
) -> dict[str, Pace]:
    """Measure the pace of each network with `workers` trainings of it at a time, unless an earlier run has.

    A network that a study of an earlier version has trained keeps the epochs it had then, and is not measured. One
    whose measurement fails has no pace; its trainings fail alike, which the results tell.

    Args:
        folder: Path of the study.
        protocol: `Protocol`; nothing is measured unless its budget is one of seconds.
        members: `Member`s.
        costs: Mapping, name of each network to its row of kind `"cost"`.
        submit: Function from `executors`.
        workers: Int, trainings that the study runs at a time; as many are started here.
        progress: Function that is called with a text, the networks measured and their number.

    Returns:
        Dict, name of each network to its `Pace`.
    """
    if protocol.budget.kind != "seconds":
        return {}
    rows = read_results(folder)
    paces = {row["member"]: Pace.of(row) for row in rows if row["kind"] == "pace"}
    trained = {row["member"] for row in rows if row["kind"] == "training"}
    new = [member for member in members if member.name not in paces.keys() | trained]
    for number, member in enumerate(new):
        at_once = f" with {workers} trainings at once" if workers > 1 else ""
        progress(f"Timing {member.name}{at_once}", number, len(new))
        running = [submit(measure_pace, protocol, member, costs[member.name]["step_ms"]) for _ in range(workers)]
        try:
            found = [each.result() for each in running]
        except BrokenProcessPool:
            raise killed(folder, f"timing {member.name}") from None
        except UserError:
            continue  # its trainings will fail alike, and are recorded
        row = pace_row(member, found, protocol.threads)
        jsonl.append(folder / RESULTS_JSONL, row)
        paces[member.name] = Pace.of(row)
    return paces


def unused_time(amount: float, planned: Mapping[str, float]) -> str | None:
    """Say which network is farthest from a time budget, as trainings are whole epochs; None if all are within 10%.

    Args:
        amount: Float, seconds of the budget.
        planned: Mapping, name of each network to the predicted seconds of its training.
    """
    unequal = {name: seconds for name, seconds in planned.items() if abs(seconds / amount - 1) > _UNUSED}
    if not unequal:
        return None
    name = max(unequal, key=lambda each: abs(unequal[each] / amount - 1))
    others = f" ({len(unequal)} networks are more than 10% off)" if len(unequal) > 1 else ""
    return (
        f"Trainings are whole epochs: of {amount:g} seconds {name} takes {unequal[name]:.0f}{others}. More --seconds "
        "make them more equal."
    )
