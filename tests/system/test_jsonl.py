"""JSONL results: every row complete or absent, also after a kill or on a full disk."""

from __future__ import annotations

import json
import shutil

import pytest

from keras_effnet.errors import UserError
from keras_effnet.system import jsonl

ROWS = [{"kind": "cost", "member": "b0"}, {"kind": "training", "member": "b0", "accuracy": 0.5}]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results.jsonl"
    for row in ROWS:
        jsonl.append(path, row)
    return path


def test_rows_come_back_as_they_were(path, tmp_path):
    assert jsonl.read(path) == ROWS
    assert jsonl.read(tmp_path / "none.jsonl") == []
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("kept", range(1, 40))
def test_a_torn_last_line_is_passed_over_and_then_replaced(path, kept):
    torn = json.dumps({"kind": "training", "member": "b1", "accuracy": 0.75})[:kept]
    path.write_bytes(path.read_bytes() + torn.encode())
    assert jsonl.read(path) == ROWS
    jsonl.append(path, {"kind": "training", "member": "b2"})
    assert jsonl.read(path) == [*ROWS, {"kind": "training", "member": "b2"}]
    assert path.read_text().splitlines() == [json.dumps(row) for row in jsonl.read(path)]  # nothing left behind it


@pytest.mark.parametrize("damage", [b"{oops\n", b"[1, 2]\n", b'"text"\n'])
def test_damage_within_is_named_by_line(path, damage):
    path.write_bytes(damage + path.read_bytes())
    with pytest.raises(UserError, match="line 1, is not a JSON object"):
        jsonl.read(path)


def test_nan_is_no_result(path):
    with pytest.raises(ValueError):
        jsonl.append(path, {"accuracy": float("nan")})
    assert jsonl.read(path) == ROWS


def test_a_full_disk_costs_the_row_that_does_not_fit_and_no_other(small_disk):
    path = small_disk / "results.jsonl"
    jsonl.append(path, ROWS[0])
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(UserError, match=r"results.jsonl: No space left on device. Free some space and run again"):
        jsonl.append(path, {"curve": "x" * 10_000})
    assert path.read_text() == json.dumps(ROWS[0]) + "\n"
    filler.unlink()
    jsonl.append(path, ROWS[1])
    assert jsonl.read(path) == ROWS
