"""Compound scaling: the formula's invariants, the published table, and the rounding that both go through."""

import json
import math
from pathlib import Path

import pytest

from keras_effnet.architecture.scaling import (
    PUBLISHED,
    CompoundScaling,
    ScalingFactors,
    explain,
    round_filters,
    round_repeats,
    round_resolution,
)
from keras_effnet.errors import UserError

FIGURES = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet.json").read_text())
GOLDEN = FIGURES["models"] | {name: row for name, row in FIGURES["v2"].items() if name.startswith("v2-b")}
PHIS = (-4, -1.5, -1, -0.25, 0, 0.5, 1, 2.5, 7)


@pytest.mark.parametrize("name", GOLDEN)
def test_published_table_is_the_papers(name):
    row, golden = PUBLISHED[name], GOLDEN[name]
    assert (row.width, row.depth, row.resolution, row.dropout, row.top1) == (
        golden["width"],
        golden["depth"],
        golden["resolution"],
        golden["dropout"],
        golden["top1"],
    )


def test_published_table_has_seventeen_networks_and_no_more():
    assert set(PUBLISHED) == set(GOLDEN)


def test_papers_constants_nearly_double_the_cost_per_phi():
    scaling = CompoundScaling()
    assert (scaling.alpha, scaling.beta, scaling.gamma) == (1.2, 1.1, 1.15)
    assert scaling.cost_per_phi == pytest.approx(1.92, abs=0.005)
    assert abs(scaling.cost_per_phi - 2) / 2 < 0.05


def test_constraint_is_the_product_not_the_sum():
    # The popular misprint: "alpha + beta + gamma ~ 2". The paper's own values sum to 3.45.
    scaling = CompoundScaling()
    assert scaling.alpha + scaling.beta + scaling.gamma == pytest.approx(3.45)
    assert CompoundScaling(2, 1, 1).cost_per_phi == 2
    assert CompoundScaling(1, math.sqrt(2), 1).cost_per_phi == pytest.approx(2)
    assert CompoundScaling(1, 1, math.sqrt(2)).cost_per_phi == pytest.approx(2)


@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("constants", [(1.2, 1.1, 1.15), (1.0, 1.0, 1.0), (1.0, 1.4, 1.1)])
def test_cost_of_the_factors_is_cost_per_phi_to_the_phi(constants, phi):
    scaling = CompoundScaling(*constants)
    factors = scaling.factors(phi)
    assert factors.cost == pytest.approx(scaling.cost_per_phi**phi)
    assert factors.cost == pytest.approx(factors.depth * factors.width**2 * factors.resolution**2)


def test_phi_zero_is_the_identity():
    assert CompoundScaling().factors(0) == ScalingFactors(1.0, 1.0, 1.0)


def test_factors_at_phi_two_are_the_squared_constants():
    factors = CompoundScaling().factors(2)
    assert (factors.depth, factors.width, factors.resolution) == pytest.approx((1.44, 1.21, 1.3225))


def test_negative_phi_undoes_positive_phi():
    up, down = CompoundScaling().factors(3), CompoundScaling().factors(-3)
    assert up.depth * down.depth == pytest.approx(1)
    assert up.width * down.width == pytest.approx(1)
    assert up.resolution * down.resolution == pytest.approx(1)


@pytest.mark.parametrize("constants", [{"alpha": 0.99}, {"beta": 0.5}, {"gamma": 0}, {"alpha": -1.2}])
def test_a_constant_below_one_is_refused_by_name(constants):
    name, value = next(iter(constants.items()))
    with pytest.raises(UserError, match=rf"{name} must be a number >= 1, got {value}"):
        CompoundScaling(**constants)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_constants_and_phi_that_are_not_numbers_are_refused(value):
    with pytest.raises(UserError, match="beta"):
        CompoundScaling(beta=value)
    with pytest.raises(UserError, match="phi must be a finite number"):
        CompoundScaling().factors(value)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_factors_are_positive_numbers(value):
    with pytest.raises(UserError, match="width"):
        ScalingFactors(width=value)


# By hand from the reference implementation's rule: nearest multiple of 8, one more if that loses over 10%.
@pytest.mark.parametrize(
    ("filters", "width", "expected"),
    [
        (32, 1.0, 32),
        (32, 1.1, 32),  # 35.2
        (32, 1.2, 40),  # 38.4
        (32, 1.4, 48),  # 44.8: halfway goes up
        (1280, 1.1, 1408),
        (1280, 2.0, 2560),
        (64, 3.0, 192),
        (16, 1.1, 16),  # 17.6
        (24, 1.1, 24),  # 26.4
        (40, 1.2, 48),
        (112, 1.1, 120),  # 123.2
        (320, 1.6, 512),
        (16, 0.25, 8),  # 4: never below one multiple
        (24, 0.45, 16),  # 10.8 rounds to 8, which loses 26%
    ],
)
def test_round_filters_known_values(filters, width, expected):
    assert round_filters(filters, width) == expected


def test_round_filters_keeps_both_promises_everywhere():
    for filters in (8, 16, 24, 32, 40, 80, 112, 192, 320, 1280):
        for step in range(1, 121):
            width = step * 0.05
            rounded = round_filters(filters, width)
            assert rounded % 8 == 0, (filters, width)
            assert rounded >= 0.9 * filters * width - 1e-9, (filters, width)
            assert rounded < filters * width + 12, (filters, width)


def test_round_filters_never_falls_as_width_grows():
    for filters in (16, 40, 112, 1280):
        series = [round_filters(filters, step * 0.05) for step in range(1, 80)]
        assert series == sorted(series)


# B7's depth 3.1 over B0's repeats 1, 2, 2, 3, 3, 4, 1.
@pytest.mark.parametrize(
    ("repeats", "depth", "expected"),
    [(1, 3.1, 4), (2, 3.1, 7), (3, 3.1, 10), (4, 3.1, 13), (4, 1.0, 4), (4, 1.1, 5), (1, 0.1, 1), (3, 0.5, 2)],
)
def test_round_repeats_rounds_up(repeats, depth, expected):
    assert round_repeats(repeats, depth) == expected


def test_round_repeats_is_not_fooled_by_floats():
    assert 2.2 * 25 > 55  # 55.00000000000001, which a bare ceil turns into 56
    assert round_repeats(25, 2.2) == 55


@pytest.mark.parametrize(("size", "expected"), [(224, 224), (257.6, 256), (258, 260), (302.9, 304), (10, 32)])
def test_round_resolution_is_a_multiple_of_four_and_at_least_32(size, expected):
    assert round_resolution(size) == expected


def test_explain_shows_table_and_formula():
    explanation = explain("b4")
    assert explanation.published_resolution == 380
    assert (explanation.published.depth, explanation.published.width) == (1.8, 1.4)
    assert explanation.phi == 3.5
    assert explanation.formula.depth == pytest.approx(1.2**3.5)
    assert explanation.formula.width == pytest.approx(1.1**3.5)
    assert explanation.formula_resolution == 4 * round(224 * 1.15**3.5 / 4)
    text = str(explanation)
    for shown in ("published", "formula", "3.5", "380 px", f"{explanation.formula_resolution} px", "1.80", "1.89"):
        assert shown in text


def test_explain_takes_other_constants_and_any_case():
    explanation = explain("B2", CompoundScaling(1.5, 1.0, 1.0))
    assert explanation.name == "b2"
    assert explanation.formula == ScalingFactors(1.5, 1.0, 1.0)


@pytest.mark.parametrize("name", [name for name in GOLDEN if "b" in name])
def test_published_rows_lie_near_the_formula(name):
    """The phi that `explain` names fits the row: no dimension is off by more than 16% (B7's depth is the farthest)."""
    explanation = explain(name)
    for dimension in ("depth", "width", "resolution"):
        ratio = getattr(explanation.published, dimension) / getattr(explanation.formula, dimension)
        assert 0.84 < ratio < 1.16, dimension


def test_explain_names_the_closest_published_model():
    with pytest.raises(UserError, match=r"Unknown published model 'light0'\. Did you mean 'lite0'\?"):
        explain("light0")
