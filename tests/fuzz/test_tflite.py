"""Damaged `.tflite` files: no command crashes, hangs or reports an unexpected error."""

from __future__ import annotations

import litert_targets
import pytest
import tflite_targets
from fuzzing import fuzz, mutants

THIS = "tests/fuzz/test_tflite.py"


def test_a_few_damaged_files_are_refused_or_run(tflite_files, tmp_path):
    tally = fuzz(litert_targets.inspect_and_time, mutants(tflite_files, 16), tmp_path, suffix=".tflite")
    assert not tally.failures, tally
    assert {result.status for result in tally.results} == {"accepted", "refused"}


@pytest.mark.parametrize(
    "count", [pytest.param(8, marks=pytest.mark.slow), pytest.param(24, marks=pytest.mark.soak)], ids=["slice", "all"]
)
def test_a_few_damaged_files_through_the_command_line(tflite_files, tmp_path, count):
    tally = fuzz(tflite_targets.commands, mutants(tflite_files, count, seed=1), tmp_path, suffix=".tflite", limit=120)
    assert not tally.failures, tally


@pytest.mark.soak
def test_two_thousand_damaged_files(tflite_files, tmp_path, capsys):
    with capsys.disabled():
        tally = fuzz(tflite_targets.api, mutants(tflite_files, 2000), tmp_path, suffix=".tflite", announce=print)
        print(tally.row("`.tflite`", THIS))
    assert not tally.failures, tally
