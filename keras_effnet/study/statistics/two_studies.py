"""Comparison of two studies, network by network. NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_effnet.study.statistics.comparisons import Comparison, basis, compare, in_words, judged
from keras_effnet.study.statistics.looks import in_series
from keras_effnet.study.statistics.wording import worded
from keras_effnet.study.summary import METRICS, Summary, ratios

_MEASURED = ("step_ms", "predict_ms", "tflite_ms")


def compare_studies(
    names: tuple[str, str],
    studies: tuple[Sequence[Summary], Sequence[Summary]],
    protocols: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> list[str]:
    """Compare the networks that two studies have in common: accuracies over paired seeds, and the ratio of each time.

    Args:
        names: Pair of strings, the names of the studies.
        studies: Pair of sequences of `Summary`s.
        protocols: Pair of mappings, the content of their `protocol.yaml`, whose differences are named.

    Returns:
        List of sentences. Where the studies did not report on the same images, accuracies are not compared.
    """
    first, last = ({each.member: each for each in study} for study in studies)
    common = [name for name in first if name in last]
    if not common:
        return [f"{names[0]} and {names[1]} have no network in common."]
    sentences = [line for line in (_settings(protocols),) if line]
    if all(_same_images(first[name], last[name]) for name in common) and _same(protocols, "data"):
        pairs = [(first[name], last[name]) for name in common]
        found = [_compared(one, other, names) for one, other in pairs]
        verdicts = judged([each for each in found if each is not None])
        sentences += [f"By accuracy, {in_words(each)}." for each in verdicts]
        sentences += [line for line in (basis(verdicts),) if line]
    else:
        sentences.append("Their accuracies are not compared: the studies did not report on the same images.")
    for name in common:
        grown = ratios(first[name], last[name])
        times = ", ".join(f"{METRICS[clock].label} x{grown[clock]:.2f}" for clock in _MEASURED if clock in grown)
        sentences.append(f"{name}, from {names[0]} to {names[1]}: {times}.")
    return [worded(sentence, first[common[0]].metric) for sentence in sentences]


def _compared(first: Summary, last: Summary, studies: tuple[str, str]) -> Comparison | None:
    before, after = (f"{first.member} of {study}" for study in studies)
    resampled = (first.resampled, last.resampled)
    return compare(before, after, (first.by_seed, last.by_seed), first.images, resampled)


def _same_images(first: Summary, last: Summary) -> bool:
    return (first.split, first.images) == (last.split, last.images)


def _same(protocols: tuple[Mapping[str, Any], Mapping[str, Any]], field: str) -> bool:
    return protocols[0].get(field) == protocols[1].get(field)


def _settings(protocols: tuple[Mapping[str, Any], Mapping[str, Any]]) -> str | None:
    """What differs between two protocols; None if nothing does."""
    before, after = ({**each, **each.get("options", {}), **each.get("data", {})} for each in protocols)
    skipped = {"options", "data", "members", "last_seen", "seeds"}
    names = [name for name in {**before, **after} if name not in skipped and before.get(name) != after.get(name)]
    if not names:
        return None
    changes = [f"{name} ({before.get(name, 'not set')}, {after.get(name, 'not set')})" for name in names]
    return f"They differ in {in_series(changes)}."
