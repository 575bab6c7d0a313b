"""Which learning rates were chosen, and how much hung on the choice. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence

from keras_effnet.study.statistics.looks import in_series
from keras_effnet.study.summary import Summary


def rate_sentences(summaries: Sequence[Summary]) -> list[str]:
    """Learning rates of the networks for which several were tried, with the validation accuracies of all."""
    tuned = [each for each in summaries if each.tried]
    if not tuned:
        return []
    told = "; ".join(f"{each.member} {_rate(each)} ({_tried(each)})" for each in tuned)
    sentences = [f"Learning rates were chosen by one short training each, on the validation images: {told}."]
    for end, word in ((min, "smallest"), (max, "largest")):
        names = [each.member for each in tuned if len(each.tried) > 1 and each.learning_rate == end(dict(each.tried))]
        if names:
            sentences.append(f"The {word} rate was the best for {in_series(names)}: one beyond may be better still.")
    return sentences


def _rate(summary: Summary) -> str:
    return f"{summary.learning_rate:g}"


def _tried(summary: Summary) -> str:
    return ", ".join(f"{rate:g}: {accuracy:.1%}" for rate, accuracy in summary.tried)
