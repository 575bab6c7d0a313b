"""Parallel coordinates: places of numbers and names on their axes, and the texts beside them."""

from __future__ import annotations

import pytest

from keras_effnet.study.report.candidate_lines import Coordinate, coordinates, parallel


def test_numbers_keep_their_distances_and_names_are_evenly_spaced():
    assert Coordinate("a", [1.0, 2.0, 5.0]).places() == [0, 0.25, 1]
    assert Coordinate("a", [1.0, 10.0, 100.0], logarithmic=True).places() == pytest.approx([0, 0.5, 1])
    assert Coordinate("a", ["swish", "relu6", "hard_swish", "relu6"]).places() == [1, 0.5, 0, 0.5]
    assert Coordinate("a", [3, 3]).places() == [0.5, 0.5]


def test_few_values_are_all_written_and_many_by_their_range():
    assert Coordinate("kernel", [5, 3, 3, 7]).ticks() == [(0, "3"), (0.5, "5"), (1, "7")]
    assert Coordinate("accuracy", [share / 10 for share in range(8)], ".0%").ticks() == [(0, "0%"), (1, "70%")]
    assert [text for _, text in Coordinate("block", list("fedcba")).ticks()] == list("abcdef")


def test_every_view_has_a_point_for_each_candidate_and_axis():
    axes = [Coordinate("kernel", [3, 5]), Coordinate("accuracy", [0.2, 0.4], ".0%")]
    lines, ticks = coordinates(["one", "two"], {"all": axes, "short": axes[1:]}, [0.2, 0.4], [False, True])
    assert len(lines) == 2 * 3 and len(ticks) == 6
    last = {"view": "short", "axis": "accuracy", "place": 0, "member": "two", "at": 1.0}
    assert lines[-1] == last | {"shown": "40%", "accuracy": 0.4, "whole": True}
    pytest.importorskip("altair")
    spec = parallel({"parallel": lines, "parallel_ticks": ticks}).to_dict()
    (view,) = [each for each in spec["params"] if each["name"] == "view"]
    assert view["bind"]["options"] == ["all", "short"]
    (view,) = [each for each in parallel({"parallel": lines[:4]}).to_dict()["params"] if each["name"] == "view"]
    assert "bind" not in view  # there is no choice
