"""Two studies, network by network: what they have in common, what differs, and where nothing can be said."""

from __future__ import annotations

from study_rows import cost, training

from keras_effnet.study.statistics.two_studies import compare_studies
from keras_effnet.study.summary import summarize

NAMES = ("before", "after")


def study(*accuracies, images=500, step_ms=20.0):
    runs = [training("small", seed, accuracy, val_images=images) for seed, accuracy in enumerate(accuracies)]
    return summarize([cost("small", 2e6, step_ms), *runs])


BEFORE, AFTER = study(0.5, 0.52, 0.51, 0.5), study(0.6, 0.61, 0.61, 0.59, step_ms=30.0)
SAME = {"data": {"source": "digits"}, "options": {"optimizer": "sgd"}, "members": [1]}


def test_networks_of_both_are_compared_over_paired_seeds():
    lines = compare_studies(NAMES, (BEFORE, AFTER), (SAME, {**SAME, "members": [2]}))
    assert lines[0].startswith("By accuracy, small of after is more accurate: +9.5 points (+")
    assert lines[1].startswith("In parentheses are 95% intervals over 4 paired seeds")
    assert lines[2].startswith("small, from before to after: training step x1.50")


def test_what_differs_between_the_protocols_is_named():
    other = SAME | {"options": {"optimizer": "adamw"}}
    assert compare_studies(NAMES, (BEFORE, AFTER), (SAME, other))[0] == "They differ in optimizer (sgd, adamw)."


def test_accuracies_on_other_images_are_not_compared():
    fewer = compare_studies(NAMES, (BEFORE, study(0.6, 0.6, images=100)), (SAME, SAME))
    elsewhere = compare_studies(NAMES, (BEFORE, AFTER), (SAME, SAME | {"data": {"source": "photos"}}))
    for lines in (fewer, elsewhere):
        assert "did not report on the same images" in "\n".join(lines) and "By accuracy" not in "\n".join(lines)


def test_studies_without_a_common_network_say_so():
    alone = summarize([cost("other", 2e6, 20.0), training("other", 0, 0.5)])
    assert compare_studies(NAMES, (BEFORE, alone)) == ["before and after have no network in common."]
