"""The fuzzing harness itself: mutants repeat, and a crash, a hang and an unexpected error are told apart."""

from __future__ import annotations

import harness_targets
import pytest
from fuzzing import BINARY, TEXT, Mutant, fuzz, mutants

FILES = {"a": bytes(range(256)), "b": b"size: 3\nnames: [x, y]\n" * 5}


@pytest.mark.parametrize("mutators", [BINARY, TEXT])
def test_a_mutant_follows_from_its_number_and_the_seed_alone(mutators):
    everything = list(mutants(FILES, 60, mutators))
    assert list(mutants(FILES, 5, mutators, start=31)) == everything[31:36]
    assert list(mutants(FILES, 60, mutators, seed=1)) != everything
    assert {(each.origin, each.kind) for each in everything} == {(name, kind) for name in FILES for kind in mutators}


def test_nearly_every_mutant_differs_from_its_file():
    changed = [each.content != FILES[each.origin] for each in mutants(FILES, 500, TEXT)]
    assert sum(changed) > 400


def test_each_kind_of_failure_is_recognised_and_the_run_goes_on(tmp_path):
    wanted = ["fine", "refuse", "verify", "crash", "fine", "hang", "raise", "lines", "refuse"]
    files = (Mutant(number, "text", "none", name.encode()) for number, name in enumerate(wanted))
    tally = fuzz(harness_targets.obey, files, tmp_path, suffix=".txt", limit=1)
    assert [result.status for result in tally.results] == [
        *("accepted", "refused", "refused", "crashed", "accepted", "hung", "unexpected", "unclear", "refused")
    ]
    assert [result.mutant.number for result in tally.failures] == [3, 5, 6, 7]
    assert "SIGABRT" in tally.failures[0].message and "KeyError" in tally.failures[2].message
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"mutant-{number}.txt" for number in (3, 5, 6, 7)]
    assert tally.row("text", "tests/fuzz") == "| text | 9 | 3 | 4 | `python -m pytest -m soak tests/fuzz` |"


def test_commands_run_as_targets(tmp_path):
    files = (Mutant(number, "text", "none", name.encode()) for number, name in enumerate(["b0", "b99"]))
    tally = fuzz(harness_targets.info, files, tmp_path, suffix=".txt")
    assert [result.status for result in tally.results] == ["accepted", "refused"], tally
    assert "Unknown" in tally.results[1].message
