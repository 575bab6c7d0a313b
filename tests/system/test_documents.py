"""Text files of users: bounded, without code, and every fault named."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pytest

import keras_effnet
from keras_effnet.errors import UserError
from keras_effnet.system.documents import json_text, parse_yaml, read_json, read_lines, read_text, read_yaml
from keras_effnet.system.typed_values import build, conform

BILLION_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION_LAUGHS, "more than 50,000 values, aliases expanded"),
        ("&a [*a]", "aliases expanded"),
        ("[" * 3000, "nested too deeply"),
        ("!!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("2024-13-45", "month must be in 1..12"),
        ("9" * 5000, "digits"),
        ("a: [1, 2", "line 1: "),
        ("{[]: 3}", "unhashable"),
        ("epochs: 1\nepochs: 2", "line 2: 'epochs' is set twice"),
        ("stages: [{kernel: 3, kernel: 5}]", "line 1: 'kernel' is set twice"),
        ("epochs: 1:30", "line 1: 1:30 is 90 in YAML: write a decimal number, or quote it"),
        ("epochs: -010", "line 1: -010 is -8 in YAML"),
        ("- 1\n" * 200_000, "characters, more than 300,000"),
    ],
)
def test_hostile_yaml_is_refused_in_one_line_within_seconds(text, message):
    started = time.process_time()
    with pytest.raises(UserError, match=message) as caught:
        parse_yaml(text)
    assert time.process_time() - started < 15
    assert "\n" not in str(caught.value) and "unexpected" not in str(caught.value)


def test_integers_of_one_meaning_are_read():
    assert parse_yaml("[07, 1_000, -3, 0x1f, 0b11, '010', '1:30']") == [7, 1000, -3, 31, 3, "010", "1:30"]


def test_moderate_aliases_are_read():
    assert parse_yaml("base: &b {kernel: 3}\nstages: [*b, {<<: *b, stride: 2}]") == {
        "base": {"kernel": 3},
        "stages": [{"kernel": 3}, {"kernel": 3, "stride": 2}],
    }
    assert parse_yaml("- &a {x: 1}\n- &b {<<: *a, x: 2}\n- {<<: *b, y: 3}")[1] == {"x": 2}  # none is set twice


def test_files_that_are_no_text_or_too_large_are_named(tmp_path):
    path = tmp_path / "labels.txt"
    with pytest.raises(UserError, match=r"labels\.txt cannot be read: No such file"):
        read_text(path)
    path.write_bytes(b"a\xff")
    with pytest.raises(UserError, match=r"labels\.txt is not text in UTF-8: byte 1 is 0xff"):
        read_text(path)
    with pytest.raises(UserError, match=r"labels\.txt is larger than 1e-06 MB"):
        read_text(path, limit=1)
    path.write_bytes(b"cat\0dog")
    with pytest.raises(UserError, match="contains NUL bytes"):
        read_lines(path)
    for read in (read_json, read_yaml):
        path.write_text("[" * 100_000)
        with pytest.raises(UserError, match=r"labels\.txt is damaged: it is nested too deeply"):
            read(path)


def test_only_line_feeds_separate_class_names(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\nzebra\x0b\u2028crossing\n\nlast".encode())
    assert read_lines(path) == ["cat", "zebra\x0b\u2028crossing", "", "last"]


class Row(TypedDict):
    kind: str
    seed: int


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Settings:
    name: str
    mean: float | tuple[float, ...] = 0.0
    mode: Literal["fast", "slow"] = "fast"
    inner: tuple[Inner, ...] = ()
    flag: bool = False
    extra: dict[str, Any] | None = None


def test_values_are_converted_to_their_hints():
    values = {"name": "x", "mean": [1, "1e-3"], "inner": [{"size": 3}], "extra": {"a": [1]}}
    assert build(Settings, values) == Settings("x", (1.0, 0.001), inner=(Inner(3),), extra={"a": [1]})
    assert conform({"kind": "x", "seed": 1, "more": None}, Row, "") == {"kind": "x", "seed": 1, "more": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"expected fields with values, .* got \[\]"),
        ({}, "name is missing"),
        ({"name": 3}, "name must be a string, got 3"),
        ({"name": "x", "nmae": 1}, "Unknown field 'nmae'. Did you mean 'name'"),
        ({"name": "x", "mean": float("nan")}, "mean must be a finite number or a list, got nan"),
        ({"name": "x", "mean": "large"}, "mean must be"),
        ({"name": "x", "mean": 10**400}, "mean must be"),
        ({"name": "x", "mode": "quick"}, "mode must be one of fast, slow, got 'quick'"),
        ({"name": "x", "flag": 1}, "flag must be true or false, got 1"),
        ({"name": "x", "inner": [{"size": 3}, {"size": True}]}, r"inner\[1\]\.size must be an integer, got True"),
        ({"name": "x", "inner": [{"size": 2**70}]}, r"inner\[0\]\.size must be an integer, got 1180"),
        ({"name": "x", "extra": {1: 2}}, "extra must be fields with values or null"),
    ],
)
def test_values_of_another_type_are_refused_with_their_field(values, message):
    with pytest.raises(UserError, match=message):
        build(Settings, values)


def test_json_text_has_null_where_a_number_is_not_finite():
    nan, infinity = float("nan"), float("inf")
    value = {"a": [nan, 1.5, -infinity], "b": (np.float32("inf"), np.float64("nan")), "c": np.array([nan, 2])}
    value |= {"path": Path("x/y"), "n": np.int64(3), "half": np.float32(0.5), "none": None, "yes": True}
    text = json_text(value)
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {
        "a": [None, 1.5, None],
        "b": [None, None],
        "c": [None, 2.0],
        "path": "x/y",
        "n": 3,
        "half": 0.5,
        "none": None,
        "yes": True,
    }


def test_json_for_users_is_written_by_json_text_only():
    root = Path(keras_effnet.__file__).parent
    writers = {path.name for path in root.rglob("*.py") if "json.dump" in path.read_text(encoding="utf-8")}
    writers |= {path.name for path in (root / "export").rglob("*.py") if "json.dump" in path.read_text("utf-8")}
    messages_between_processes = {"memory.py", "step_memory.py", "worker.py", "parent.py"}
    assert writers - messages_between_processes == {"documents.py", "jsonl.py", "html_pages.py", "encodings.py"}
