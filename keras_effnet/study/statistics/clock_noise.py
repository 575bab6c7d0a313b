"""How far measured times can be trusted: their interquartile ranges, and other load on the machine. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_effnet.study.summary import METRICS, Summary

CLOCKS = ("step_ms", "predict_ms", "tflite_ms")
_BUSY = 0.1  # share of the cores that other processes may use
_NOISY = 0.25  # interquartile range as a share of the median
_PREDICTED = 0.1  # distance of a training's time from its prediction
_ABOVE_PEAK = (
    1.1  # a convolution whose data stay in the cache may exceed the bound by bandwidth, not that of arithmetic
)
_AGAIN = "Read them as upper bounds, or measure again on an idle machine under another --name."


def is_busy(cores: float | None, others: float | None) -> bool:
    """Whether other processes used more than a tenth of the cores."""
    return bool(cores) and others is not None and others > _BUSY * (cores or 1)


def clock_sentences(summaries: Sequence[Summary]) -> list[str]:
    """Interquartile ranges of the times of a study, and a verdict where the machine was busy."""
    shares = {
        (each.member, clock): (each.noise(clock) or 0.0) / time
        for each in summaries
        for clock in CLOCKS
        if (time := each.cost(clock))
    }
    if not shares:
        return []
    worst = max(shares, key=lambda key: shares[key])
    member, clock = worst
    sentences = [
        f"Times are medians; their interquartile ranges are up to {shares[worst]:.0%} of them "
        f"({METRICS[clock].label} of {member})."
    ]
    loads = [each for each in summaries if is_busy(each.cores, each.other_cores)]
    if loads:
        most = max(loads, key=lambda each: each.other_cores or 0.0)
        sentences.append(
            f"The machine was busy while networks were timed: other processes used {most.other_cores:.1f} of "
            f"{most.cores} cores. {_AGAIN}"
        )
    elif shares[worst] > _NOISY:
        sentences.append(f"{_suspicion(summaries)} {_AGAIN}")
    return sentences


def _suspicion(summaries: Sequence[Summary]) -> str:
    """What may have made times scatter, where no load of other processes explains it."""
    loads = [(each.other_cores, each.cores) for each in summaries if each.cores and each.other_cores is not None]
    if len(loads) < len(summaries):  # earlier versions did not record it
        return "The machine was probably busy while networks were timed."
    most, cores = max(loads)
    return (
        f"Times scatter, though other processes used only {most:.1f} of {cores} cores: the processor may be shared "
        "with other machines, or change its clock."
    )


def time_sentence(summaries: Sequence[Summary]) -> str | None:
    """Seconds that trainings took, beside those predicted from the pace of each network; None without a prediction."""
    ratios = {each: each.train_seconds / each.predicted_seconds for each in summaries if each.predicted_seconds}
    if not ratios:
        return None
    farthest = max(ratios, key=lambda each: abs(math.log(ratios[each])))
    within = sum(abs(ratio - 1) <= _PREDICTED for ratio in ratios.values())
    span = f"x{min(ratios.values()):.2f} to x{max(ratios.values()):.2f}"
    return (
        f"Trainings took {span} of the predicted seconds, {within} of {len(ratios)} networks within 10%; farthest is "
        f"{farthest.member}, {farthest.train_seconds:.0f} s instead of {farthest.predicted_seconds:.0f}."
    )


def roofline_doubts(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Say why the measured peaks of the machine cannot be right; None where nothing speaks against them."""
    for row in rows:
        peak = row["peaks"]["gflops"]
        fastest = max(row["kinds"], key=lambda kind: kind["gflops"])
        if fastest["gflops"] > _ABOVE_PEAK * peak:
            return (
                f"The peaks cannot be right: {fastest['kind']} of {row['member']} ran at {fastest['gflops']:.0f} "
                f"GFLOP/s, the peak was measured as {peak:.0f}. The machine was busy."
            )
        if is_busy(row.get("cores"), row.get("other_cores")):
            return (
                f"The machine was busy meanwhile: other processes used {row['other_cores']:.1f} of {row['cores']} "
                "cores, so the peaks are too low."
            )
    return None
