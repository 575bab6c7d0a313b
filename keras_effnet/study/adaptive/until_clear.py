"""Add seeds to a study where they matter, until its comparisons are settled. Pure Python."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from keras_effnet.study.statistics.answers import open_pairs
from keras_effnet.study.statistics.looks import Looks, in_series
from keras_effnet.study.summary import summarize

Seeds = Mapping[str, int]


def train_until_clear(
    names: Sequence[str],
    looks: Looks,
    train: Callable[[Seeds], Mapping[str, str]],
    rows: Callable[[], Sequence[Mapping[str, Any]]],
    affordable: Callable[[Seeds], bool] = lambda added: True,
    announce: Callable[[str], None] = lambda text: None,
) -> Mapping[str, str]:
    """Train all networks with the first seeds, then those of unclear comparisons with more.

    Every look is taken at the results up to its seeds alone. So a resumed study, or one whose limit was raised, comes
    to the decisions that it would have come to without the interruption.

    Args:
        names: Names of the networks.
        looks: `Looks`.
        train: Function that trains each network up to a number of seeds, those that exist excepted, and returns the
            failed trainings with their errors.
        rows: Function that returns the rows of `results.jsonl`.
        affordable: Function that tells whether there is time for a number of further seeds of each network.
        announce: Function that is called with a line on what is added.

    Returns:
        Mapping, failed training to its error. A failure ends the study, as does the last look.
    """
    wanted = dict.fromkeys(names, looks.seeds[0])
    for seeds, further in pairwise([*looks.seeds, 0]):
        if (failures := train(wanted)) or not further:
            return failures
        seen = [row for row in rows() if row["kind"] != "training" or row["seed"] < wanted.get(row["member"], 0)]
        pairs = open_pairs(summarize(seen), looks.level(seeds))
        grown = {name: further for name in names if any(name in pair for pair in pairs)}
        if not grown:
            return {}
        added = {name: further - wanted[name] for name in grown}
        number = "one comparison is" if len(pairs) == 1 else f"{len(pairs)} comparisons are"
        if not affordable(added):
            announce(f"After {seeds} seeds {number} unclear; there is no time for {further}.")
            return {}
        announce(f"After {seeds} seeds {number} unclear: {in_series([*grown])} get {further} seeds.")
        wanted |= grown
    return {}


def within_hours(
    hours: float | None, rows: Callable[[], Sequence[Mapping[str, Any]]], workers: int = 1
) -> Callable[[Seeds], bool]:
    """Function that tells whether further seeds fit into a time that starts now.

    The time of a training is taken from the finished trainings of the network.

    Args:
        hours: Float, or None for no limit.
        rows: Function that returns the rows of `results.jsonl`.
        workers: Int, trainings at a time.
    """
    started, limit = time.monotonic(), math.inf if hours is None else 3600 * hours

    def affordable(added: Seeds) -> bool:
        times: dict[str, list[float]] = {name: [] for name in added}
        for row in rows():
            if row["kind"] == "training" and row["member"] in times:
                times[row["member"]].append(row["train_seconds"])
        seconds = sum(count * fmean(times[name]) for name, count in added.items() if times[name])
        return time.monotonic() - started + seconds / workers <= limit

    return affordable
