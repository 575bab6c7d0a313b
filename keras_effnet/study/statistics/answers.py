"""Findings of a study in words, each difference of accuracy with its interval.

NumPy and SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from keras_effnet.architecture.scaling import PUBLISHED
from keras_effnet.study.networks import AXES, BASELINE
from keras_effnet.study.power_law import time_law
from keras_effnet.study.statistics.clock_noise import CLOCKS, clock_sentences, time_sentence
from keras_effnet.study.statistics.comparisons import (
    LEVEL,
    Comparison,
    Judged,
    basis,
    compare,
    image_count,
    in_words,
    judged,
    points,
    scatter,
    uncertainty,
)
from keras_effnet.study.statistics.looks import Looks
from keras_effnet.study.statistics.rate_choice import rate_sentences
from keras_effnet.study.statistics.sample_size import TO_SEE, expected_scatter, seeds_needed
from keras_effnet.study.statistics.wording import worded
from keras_effnet.study.summary import METRICS, Summary, ratios

_UNEQUAL = 1.1  # ratio of MACs from which on networks do not cost the same


@dataclass(frozen=True)
class _Question:
    """Comparisons and how they are told once they are judged, together with all others of the answer.

    Args:
        comparisons: List of `Comparison`s.
        told: Function of their verdicts that returns the sentence.
        about: String or None, the network whose comparisons the sentence tells; None if it tells all of them.
    """

    comparisons: list[Comparison]
    told: Callable[[list[Judged]], str]
    about: str | None = None

    def unclear(self, verdicts: Sequence[Judged]) -> list[tuple[str, str]]:
        """Pairs of networks that the sentence cannot tell apart."""
        pairs = [(each.comparison.first, each.comparison.last) for each in verdicts if each.verdict == "unclear"]
        return [pair for pair in pairs if self.about is None or self.about in pair]


def answer(summaries: Sequence[Summary], looks: Looks | None = None) -> list[str]:
    """Findings of a study, one sentence each: how time and accuracy grew with size, and who beat whom.

    Differences of accuracy are compared over paired seeds and corrected for the number of comparisons; where the seeds
    cannot tell, the sentence says so, and how many could.

    Args:
        summaries: `Summary`s.
        looks: `Looks` of a study to which seeds were added, see `looks.looks_of`: intervals are corrected for them.

    Returns:
        List of strings.
    """
    if not summaries:
        return ["No network has been trained to the end."]
    if len(summaries) < 2:
        return ["A study of one network has nothing to compare; add another."]
    seeds = {each.member: len(each.accuracies) for each in summaries}
    verdicts = _verdicts(summaries, looks.level(max(seeds.values())) if looks else LEVEL)
    told = [question.told(own) for question, own in verdicts]
    every = [each for _, own in verdicts for each in own]
    unclear = sum(len(question.unclear(own)) for question, own in verdicts)
    last = [basis(every, looks.correction() if looks else ""), looks.outcome(seeds, unclear) if looks else None]
    first = [*_growth(_series(summaries)), *clock_sentences(summaries), time_sentence(summaries)]
    first += [_source(summaries[0])]
    first += rate_sentences(summaries)
    lines = [*first, *told, *last, _needed(summaries, every)]
    return [worded(line, summaries[0].metric) for line in lines if line]


def _source(summary: Summary) -> str | None:
    """Say which images the accuracies are of, where these are no validation images."""
    if summary.split == "validation" or summary.images is None:
        return None
    return f"Accuracies are those of {summary.images:,} {summary.split} images, by which nothing was chosen."


def open_pairs(summaries: Sequence[Summary], level: float = LEVEL) -> list[tuple[str, str]]:
    """Pairs of networks that the sentences of an answer cannot tell apart.

    Args:
        summaries: `Summary`s.
        level: Float, probability of a false finding.
    """
    return [pair for question, own in _verdicts(summaries, level) for pair in question.unclear(own)]


def _verdicts(summaries: Sequence[Summary], level: float) -> list[tuple[_Question, list[Judged]]]:
    """The questions of an answer with their verdicts, which are judged together."""
    if len(summaries) < 2:
        return []
    questions = [each for each in (_gain(_series(summaries)), *_axes(summaries), *_rivals(summaries)) if each]
    verdicts = iter(judged([each for question in questions for each in question.comparisons], level=level))
    return [(question, list(islice(verdicts, len(question.comparisons)))) for question in questions]


def _series(summaries: Sequence[Summary]) -> Sequence[Summary]:
    """Networks that differ only in size: compound scaling if it has two, else all EfficientNets, else all."""
    compound = [each for each in summaries if each.axis in ("compound", BASELINE)]
    efficient = [each for each in summaries if each.model in PUBLISHED]
    return next((some for some in (compound, efficient) if len(some) > 1), summaries)


def _growth(series: Sequence[Summary]) -> list[str]:
    """How the measured times grew with MACs, by least squares over all networks of a series."""
    first, last = series[0], series[-1]
    grown = ratios(first, last)
    growth = ", ".join(f"{METRICS[name].label} x{grown[name]:.2f}" for name in CLOCKS if name in grown)
    sentences = [f"From {first.member} to {last.member} MACs grew x{grown['macs']:.2f}; {growth}."]
    powers = [f"{METRICS[clock].label} {text}" for clock in CLOCKS if (text := _power(series, clock))]
    if powers:
        of = "two networks, which give no interval" if len(series) == 2 else f"{len(series)} networks"
        sentences.append(
            f"By least squares over {of}, times grew as MACs to a power of: {'; '.join(powers)}. A power of 1 would "
            "mean time proportional to MACs."
        )
    return sentences


def _power(series: Sequence[Summary], clock: str) -> str | None:
    law = time_law(series, clock)
    if law is None:
        return None
    interval = law.slope_interval()
    return f"{law.slope:.2f}" + (f" (95% interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else "")


def _compared(first: Summary, last: Summary) -> Comparison | None:
    resampled = (first.resampled, last.resampled)
    return compare(first.member, last.member, (first.by_seed, last.by_seed), first.images, resampled)


def _gain(series: Sequence[Summary]) -> _Question | None:
    found = _compared(series[0], series[-1])
    return _Question([found], lambda verdicts: f"By accuracy, {in_words(verdicts[0])}.") if found else None


def _rivals(summaries: Sequence[Summary]) -> list[_Question]:
    """Compare every other network with the EfficientNet closest in MACs."""
    ours = [each for each in summaries if each.model in PUBLISHED]
    others = [each for each in summaries if each.model not in PUBLISHED]
    pairs = [(min(ours, key=lambda each: abs(math.log(each.macs / other.macs))), other) for other in others if ours]
    asked = [(near, other, found) for near, other in pairs if (found := _compared(near, other))]

    def told(near: Summary, other: Summary) -> Callable[[list[Judged]], str]:
        costs = f"x{other.macs / near.macs:.2f} the MACs and x{other.step_ms / near.step_ms:.2f} the training step"
        return lambda verdicts: f"Against {near.member}, at {costs}, {in_words(verdicts[0])}."

    return [_Question([found], told(near, other)) for near, other, found in asked]


def _axes(summaries: Sequence[Summary]) -> list[_Question]:
    """Which axis won: all pairs of axes at the largest step that two or more of them share, for each baseline."""
    questions = []
    for model in dict.fromkeys(each.model for each in summaries if each.axis in AXES):
        scaled = [each for each in summaries if each.axis in AXES and each.model == model]
        steps = {phi: {each.axis: each for each in scaled if each.phi == phi} for phi in {each.phi for each in scaled}}
        shared = [phi for phi, rivals in steps.items() if len(rivals) > 1]
        if shared:
            phi = max(shared, key=abs)
            questions.append(_axis_question([*steps[phi].values()], phi))
    return [each for each in questions if each]


def _axis_question(rivals: Sequence[Summary], phi: float) -> _Question | None:
    best = max(rivals, key=lambda each: each.accuracy)
    pairs = [(first, last) for first, last in combinations(rivals, 2)]
    asked = [(first, last, found) for first, last in pairs if (found := _compared(first, last))]
    if not asked:
        return None
    costs = [each.macs for each in rivals]
    unequal = max(costs) / min(costs)

    def told(verdicts: list[Judged]) -> str:
        own = [
            (last if first is best else first, found)
            for (first, last, _), found in zip(asked, verdicts, strict=True)
            if best in (first, last)
        ]
        parts = [_against(best, rival, found) for rival, found in own]
        text = (
            f"At phi {phi:g}, {best.axis} scaling is the most accurate, with {best.accuracy:.1%}: {'; '.join(parts)}."
        )
        if unequal > _UNEQUAL:
            text += f" Their MACs differ by x{unequal:.2f}, so they are not compared at equal cost."
        return text

    return _Question([found for *_, found in asked], told, best.member)


def _against(best: Summary, rival: Summary, found: Judged) -> str:
    sign = 1 if found.comparison.last == best.member else -1
    verdict = {"equal": "the same as", "unclear": "cannot be told from"}.get(found.verdict, "better than")
    low, high = sorted((sign * found.low, sign * found.high))
    size = points(sign * found.comparison.difference)
    turned = Judged(found.comparison, found.p, low, high, found.verdict)
    return f"{verdict} {rival.axis}, {size} points ({uncertainty(turned)})"


def _needed(summaries: Sequence[Summary], verdicts: Sequence[Judged]) -> str | None:
    """Seeds that would settle what is unclear, from the scatter that was found."""
    unclear = [abs(each.comparison.difference) for each in verdicts if each.verdict == "unclear"]
    if not unclear or summaries[0].resampled:  # the power is that of shares of right answers
        return None
    accuracies = [value for each in summaries for value in each.accuracies]
    images = summaries[0].images or image_count(accuracies)
    found = scatter([each.accuracies for each in summaries])
    text = power_sentence(images, len(verdicts), found, kind=summaries[0].split)
    largest = max(unclear)
    needed = seeds_needed(largest, images, scatter=found, comparisons=len(verdicts)) if 0 < largest < 1 else None
    if largest > 1.01 * TO_SEE and needed:
        text += f" For the largest difference that is unclear, {100 * largest:.1f} points, {needed} are enough."
    return text


def power_sentence(
    images: int,
    comparisons: int,
    found: float | None = None,
    difference: float = TO_SEE,
    kind: str = "validation",
) -> str:
    """Say how many seeds would show a difference between two networks, in 8 of 10 studies.

    Args:
        images: Int, number of images that report.
        comparisons: Int, comparisons that are judged together.
        found: Float or None, standard deviation of the accuracy over seeds; None before anything was trained.
        difference: Float, difference of accuracies to see.
        kind: String, what the images are, `"validation"` or `"test"`.
    """
    needed = seeds_needed(difference, images, scatter=found, comparisons=comparisons)
    what = f"To see a difference of {100 * difference:g} points on {images:,} {kind} images"
    if needed is None:
        return f"{what} no number of seeds is enough: hold out more images."
    among = f" among {comparisons} comparisons" if comparisons > 1 else ""
    usual = found or expected_scatter(images)
    source = "as usual" if found is None else "as found here"
    return f"{what}{among}, {needed} seeds are needed if they scatter by {100 * usual:.1f} points, {source}."
