"""Learning rate of each network, chosen by short trainings on the validation images. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_effnet.study.executors import Submit
from keras_effnet.study.results import RESULTS_JSONL, read_results
from keras_effnet.study.scheduler import StudyProgress, run_trials
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system import jsonl

_SHARE = 1 / 3  # length of a trial in epochs, as a share of a training


def tuned_rates(
    folder: Path,
    trainings: Sequence[TrainingRun],
    submit: Submit,
    progress: StudyProgress,
    run: Callable[..., Mapping[str, str]] = run_trials,
) -> dict[str, float]:
    """Choose the learning rate of every network by one short training for each rate of the protocol.

    The rate with the best validation accuracy is chosen, of equal ones that closest to the protocol's own. The choice
    is recorded as a row of kind `"tuning"`, and is not repeated.

    Args:
        folder: Path of the study; the short trainings are in its folder `tuning`.
        trainings: `TrainingRun`s, one of each network.
        submit, progress: As in `scheduler.run_trials`.
        run: Function with the arguments of `run_trials`.

    Returns:
        Dict, name of each network to its rate; a network is missing if its trainings failed with every rate.
    """
    rows = read_results(folder)
    chosen = {row["member"]: row["learning_rate"] for row in rows if row["kind"] == "tuning"}
    short = {
        each.member.name: {rate: _short(each, rate, folder) for rate in each.protocol.rates}
        for each in trainings
        if each.member.name not in chosen
    }
    run(folder / "tuning", [trial for trials in short.values() for trial in trials.values()], submit, progress)
    found = {row["member"]: row for row in read_results(folder / "tuning") if row["kind"] == "training"}
    own = {each.member.name: each.protocol.options["learning_rate"] for each in trainings}
    for name, trials in short.items():
        tried = {rate: found[trial.member.name] for rate, trial in trials.items() if trial.member.name in found}
        if tried:
            row = _chosen(name, tried, own[name])
            jsonl.append(folder / RESULTS_JSONL, row)
            chosen[name] = row["learning_rate"]
    return chosen


def _short(training: TrainingRun, rate: float, folder: Path) -> TrainingRun:
    """A short training of the same network with another learning rate; its schedule ends with it."""
    member = replace(training.member, name=f"{training.member.name}-lr{rate:g}")
    epochs = max(len(member.sizes), round(_SHARE * training.epochs), 1)
    place = (folder / "tuning" / member.name).resolve()
    protocol = training.protocol.at_rate(rate)
    return TrainingRun(protocol, member, training.seed, epochs, str(place), study=training.study, reports=False)


def _chosen(name: str, tried: Mapping[float, Mapping[str, Any]], own: float) -> dict[str, Any]:
    best = max(tried, key=lambda rate: (tried[rate]["accuracy"], -abs(math.log(rate / own))))
    return {
        "kind": "tuning",
        "member": name,
        "learning_rate": best,
        "epochs": tried[best]["epochs"],
        "tried": [{"learning_rate": rate, "accuracy": row["accuracy"]} for rate, row in tried.items()],
    }
