"""Looks at a growing study: their share of false findings, and what the answer says of them."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_studies import found, simulated
from study_rows import cost, training

from keras_effnet.study.statistics.answers import answer, open_pairs
from keras_effnet.study.statistics.looks import Looks, looks_of
from keras_effnet.study.summary import summarize

LOOKS = Looks(2, 16)


def false_findings(levels) -> float:
    """Share of studies of two equal networks that find a difference at one of the looks."""
    accuracies = simulated(np.random.default_rng(0), 4000, 16, 500)
    seen = [found(accuracies[..., :seeds], 500, level) for seeds, level in zip(LOOKS.seeds, levels, strict=True)]
    return float(np.any(seen, axis=0).mean())


def test_looks_together_have_no_more_false_findings_than_a_single_one():
    assert false_findings([LOOKS.level(seeds) for seeds in LOOKS.seeds]) <= 0.05
    assert false_findings([0.05] * 4) > 0.06  # what dividing the 5% prevents


def test_the_shares_of_all_looks_are_five_per_cent():
    assert LOOKS.seeds == [2, 4, 8, 16] and Looks(3, 10).seeds == [3, 6, 10]
    assert sum(map(LOOKS.level, LOOKS.seeds)) == pytest.approx(0.05)
    assert LOOKS.level(7) == LOOKS.level(4) and Looks(3, 3).level(3) == 0.05


def test_a_protocol_without_growing_seeds_has_no_looks():
    assert looks_of({"seeds": 3}) is None and looks_of({"seeds": 3, "max_seeds": 9}) == Looks(3, 9)


def seeds(member, *accuracies):
    return [training(member, seed, accuracy, val_images=500) for seed, accuracy in enumerate(accuracies)]


def axis(name, *accuracies):
    return [{**cost(name, 4e6, 30.0, axis=name), "phi": 1.0}, *seeds(name, *accuracies)]


def test_only_what_a_sentence_leaves_open_gets_seeds():
    """Width and resolution are alike, but no sentence compares them: depth is the best."""
    rows = axis("depth", 0.7, 0.71, 0.7, 0.69) + axis("width", 0.6, 0.61, 0.6, 0.61)
    rows += axis("resolution", 0.6, 0.61, 0.61, 0.6)
    assert open_pairs(summarize(rows)) == []
    assert set(open_pairs(summarize(rows + axis("compound", 0.7, 0.7, 0.71, 0.68)))) == {("depth", "compound")}


def test_the_answer_says_what_was_added_and_what_stays_open():
    rows = [cost("large", 8e6, 40.0), cost("small", 2e6, 20.0)]
    rows += seeds("small", 0.5, 0.52, 0.5, 0.51) + seeds("large", 0.52, 0.5, 0.51, 0.52)
    text = "\n".join(answer(summarize(rows), Looks(2, 4)))
    assert "over 4 paired seeds, corrected for looks after 2 and 4 seeds; those" in text
    assert "Seeds were added where a comparison was unclear: small (4) and large (4). One comparison stays open" in text
    assert "after 4 seeds, the most allowed." in text
    assert "the time was up" in "\n".join(answer(summarize(rows), Looks(2, 8)))
    clear = rows[:2] + seeds("small", 0.5, 0.52, 0.5, 0.51) + seeds("large", 0.92, 0.9, 0.91, 0.92)
    text = "\n".join(answer(summarize(clear), Looks(4, 8)))
    assert "No seeds were added to the 4 of each network. Every comparison is settled." in text
