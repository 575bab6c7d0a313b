"""Networks and protocol of a study: what can be tested without training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.specs import expand
from keras_effnet.complexity.counting import count
from keras_effnet.config.recipes import RECIPES
from keras_effnet.errors import UserError
from keras_effnet.study.networks import AXES, Member, cost_warnings, factors_along, family, progressive, scaled
from keras_effnet.study.protocol import Budget, Protocol, macs_per_epoch

PAPER = CompoundScaling()


# --- arithmetic of scaling one dimension, by hand


def test_resnet18_twice_as_deep_has_twice_the_blocks_and_nothing_else():
    spec = architecture_spec("resnet18", depth=2)
    blocks = expand(spec).blocks
    assert [sum(block.name.startswith(f"block{stage}") for block in blocks) for stage in (1, 2, 3, 4)] == [4, 4, 4, 4]
    assert sum(len(block.branch) for block in blocks) == 32  # two 3x3 convolutions a block
    assert [blocks[index].output.out_channels for index in (0, 4, 8, 12)] == [64, 128, 256, 512]


def test_resnet18_three_times_as_wide_has_three_times_the_filters():
    network = expand(architecture_spec("resnet18", width=3))
    assert network.stem.out_channels == 192
    assert [block.output.out_channels for block in network.blocks] == [192, 192, 384, 384, 768, 768, 1536, 1536]


def test_resnet18_at_one_and_a_half_the_resolution_sees_336_pixels():
    spec = architecture_spec("resnet18", resolution=1.5)
    assert spec.image_size == 336
    assert [block.output.out_size for block in expand(spec).blocks] == [84, 84, 42, 42, 21, 21, 11, 11]


@pytest.mark.parametrize(
    ("factors", "tolerance"),
    [
        # Twice the blocks: the stem and the strided first blocks stay, which are some 15% of ResNet-18.
        ({"depth": 2}, 0.1),
        # Three times the channels; the stem reads 3 colours, so grows by 3 and not by 9.
        ({"width": 3}, 0.06),
        # 224 ends in 7 pixels, 336 in 11, where 10.5 would be exact.
        ({"resolution": 1.5}, 0.03),
        ({"depth": 2, "width": 2, "resolution": 1.5}, 0.12),
    ],
)
def test_macs_of_resnet18_follow_depth_width_and_resolution(factors, tolerance):
    """d * w^2 * r^2 within rounding (EfficientNet, section 3.3)."""
    whole = {"depth": 1.0, "width": 1.0, "resolution": 1.0} | factors
    expected = whole["depth"] * whole["width"] ** 2 * whole["resolution"] ** 2
    grown = count(architecture_spec("resnet18", **factors)).macs / count(architecture_spec("resnet18")).macs
    assert grown == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("phi", [-2.0, 0.5, 3.0])
def test_all_axes_cost_the_same_before_rounding(axis, phi):
    assert factors_along(axis, phi, PAPER).cost == pytest.approx(1.92027**phi, rel=1e-6)


@pytest.mark.parametrize("axis", AXES)
def test_a_step_of_phi_about_doubles_the_real_macs(axis):
    """Channels in eights, blocks in wholes and pixels in fours make it differ from 1.92; B0 at 224 px bears it well."""
    base, grown = scaled("b0", [0, 2], [axis], image_size=224)
    protocol = Protocol({"source": "digits"})
    ratio = count(protocol.config(grown).spec).macs / count(protocol.config(base).spec).macs
    assert 1.92**2 * 0.85 < ratio < 1.92**2 * 1.35


# --- members


def test_the_baseline_is_shared_by_all_axes():
    members = scaled("b0", [-1, 0], AXES)
    assert [member.name for member in members] == [
        "b0-phi-1",
        "b0",
        "b0-depth-phi-1",
        "b0-width-phi-1",
        "b0-resolution-phi-1",
    ]
    assert [member.axis for member in members if member.phi == 0] == ["baseline"]


def macs_of(member, **changes):
    shape = {"depth": member.depth, "width": member.width, "image_size": member.image_size}
    return count(architecture_spec(member.model, **shape, **changes), include_top=False).macs


@pytest.mark.parametrize(("baseline", "size", "phis"), [("b0", 64, [1]), ("lite0", 224, [-1]), ("resnet18", 64, [1])])
def test_several_axes_are_given_the_counted_macs_of_compound_scaling(baseline, size, phis):
    """By the formula resolution cost half as much again as depth, and compound scaling twice as much."""
    members = scaled(baseline, phis, AXES, image_size=size)
    for phi in phis:
        macs = {each.axis: macs_of(each) for each in members if each.phi == phi}
        assert len(macs) == 4
        for each in macs.values():
            assert each / macs["compound"] == pytest.approx(1, abs=0.08)


def test_axes_without_compound_scaling_meet_its_formula():
    base, *others = scaled("b0", [0, 1], ["depth", "width"], image_size=96)
    assert [each.axis for each in others] == ["depth", "width"]
    for each in others:
        assert macs_of(each) / macs_of(base) == pytest.approx(CompoundScaling().cost_per_phi, rel=0.06)


def test_a_single_axis_follows_the_formula():
    (member,) = scaled("b0", [1], ["depth"])
    assert member.depth == pytest.approx(CompoundScaling().cost_per_phi)


def test_the_stride_of_the_stem_counts_for_equal_costs():
    depth, compound = scaled("lite0", [1], ["depth", "compound"], image_size=48, stem_stride=1)
    assert macs_of(depth, stem_stride=1) / macs_of(compound, stem_stride=1) == pytest.approx(1, abs=0.08)


def test_a_size_at_which_macs_jump_is_told_with_its_cost():
    """At 36 pixels they are 2.4 times those at 32, where the area is 1.27 times as large."""
    (jump,) = cost_warnings(scaled("lite0", [1], image_size=32))
    spec = architecture_spec("lite0", depth=1.2, width=1.1)
    growth = [count(replace(spec, image_size=size), include_top=False).macs for size in (32, 36)]
    assert f"{growth[1] / 1e6:.1f} million MACs, x{growth[1] / growth[0]:.2f} those at 32 pixels, for x1.27" in jump
    assert "has just grown to 2x2" in jump and "multiples of 32 pixels, such as 64" in jump
    assert cost_warnings(scaled("lite0", [0], image_size=32)) == []
    assert (
        "multiples of 16 pixels, such as 48"
        in cost_warnings(scaled("lite0", [1], image_size=32), {"stem_stride": 1})[0]
    )


def test_axes_that_cannot_cost_the_same_are_named():
    found = cost_warnings(scaled("lite0", [2], AXES, image_size=32))
    assert any(each.startswith("At phi 2 the axes cannot cost the same at these sizes: ") for each in found)


def test_other_constants_scale_otherwise():
    (member,) = scaled("b0", [1], scaling=CompoundScaling(1.0, 1.0, 1.4))
    assert (member.depth, member.width, member.image_size) == (1.0, 1.0, 88)  # 89.6 to the nearest four


def test_a_family_keeps_its_resolutions_in_proportion():
    # 224, 300, and ResNet-18, which has one size: 64 * 300 / 224 = 85.7.
    assert [member.image_size for member in family(["b0", "b3", "resnet18"], 64)] == [64, 84, 64]
    assert [member.image_size for member in family(["v2-b0", "v2-b3", "v2-s"], 64)] == [64, 84, 108]  # of 224, 300, 384


def test_a_published_network_is_scaled_from_its_own_resolution():
    # 64 * 300 / 224 = 85.7 to the nearest four below; a step of phi multiplies it by 1.15.
    assert [member.image_size for member in scaled("b3", [0, 1])] == [84, 100]


def test_a_scaled_network_is_what_its_options_say():
    (member,) = scaled("b0", [-1])
    spec = Protocol({"source": "digits"}).config(member).spec
    assert (spec.depth, spec.width, spec.image_size) == (pytest.approx(1 / 1.2), pytest.approx(1 / 1.1), 56)


def test_too_few_pixels_are_refused_with_the_cure():
    with pytest.raises(UserError, match=r"resolution at phi -3 gives 24 pixels, fewer than 32.*--image-size"):
        scaled("b0", [-3], ["resolution"])


@pytest.mark.parametrize(
    ("call", "closest"),
    [
        (lambda: scaled("resnet5", [0]), "resnet50"),
        (lambda: scaled("b0", [1], ["widht"]), "width"),
        (lambda: family(["resnet16"]), "resnet18"),
        (lambda: progressive("lite00"), "lite0"),
    ],
)
def test_typos_get_the_closest_name(call, closest):
    with pytest.raises(UserError, match=f"Did you mean '{closest}'"):
        call()


def test_growing_images_end_at_the_networks_size():
    fixed, growing = progressive("b0", 64)
    assert (fixed.sizes, growing.sizes) == ([64], [32, 48, 64])
    assert fixed.options | {"progressive": "32,48,64"} == growing.options
    with pytest.raises(UserError, match="has no smaller first stage"):
        progressive("b0", 32)


# --- budgets


def test_equal_macs_buy_epochs_in_inverse_proportion():
    protocol = Protocol({"source": "digits"}, Budget("macs", 1e12))
    small, large = scaled("b0", [-2, 0])
    costs = {
        member.name: macs_per_epoch(protocol.config(member), member, images=1000, classes=10)
        for member in (small, large)
    }
    assert costs["b0"] == 3 * 1000 * count(protocol.config(large).spec, classes=10).macs
    epochs = {
        name: protocol.budget.epochs(seconds_per_epoch=math.nan, macs_per_epoch=cost) for name, cost in costs.items()
    }
    assert epochs == {name: int(1e12 / cost) for name, cost in costs.items()}
    assert epochs["b0-phi-2"] > 2 * epochs["b0"]  # rounding leaves it more than 1 / 1.92^2 of the cost


def test_growing_images_cost_the_mean_of_their_sizes():
    protocol = Protocol({"source": "digits"})
    _, growing = progressive("b0", 64)
    spec = protocol.config(growing).spec
    mean = sum(count(spec, image_size=size, classes=10).macs for size in (32, 48, 64)) / 3
    assert macs_per_epoch(protocol.config(growing), growing, 10, 10) == pytest.approx(30 * mean)


def test_equal_seconds_buy_whole_epochs_and_one_at_least():
    budget = Budget("seconds", 60)
    assert budget.epochs(seconds_per_epoch=7, macs_per_epoch=1) == 8
    assert budget.epochs(seconds_per_epoch=61, macs_per_epoch=1) == 1
    assert Budget("epochs", 3).epochs(seconds_per_epoch=1, macs_per_epoch=1) == 3


@pytest.mark.parametrize("amount", [0, -1, math.nan])
def test_a_budget_of_nothing_is_refused(amount):
    with pytest.raises(UserError, match="budget must be above 0"):
        Budget("epochs", amount)


@pytest.mark.parametrize("name", ["seed", "epochs", "depth", "model", "image_size", "progressive"])
def test_a_protocol_leaves_open_what_a_study_varies(name):
    with pytest.raises(UserError, match=f"{name} varies between the trainings of a study"):
        Protocol({"source": "digits"}, options={name: 1})


def test_a_protocol_outlives_its_file():
    protocol = Protocol({"source": "digits", "seed": 3}, Budget("macs", 2e12), {"learning_rate": 1e-3}, threads=2)
    assert Protocol.from_dict(protocol.to_dict()) == protocol


def test_warm_up_takes_a_quarter_of_a_short_training_at_most():
    member = Member("b0", "family", 0.0, "b0")
    assert Protocol({}).config(member, epochs=2).warmup_epochs == 0.5
    assert Protocol({}).config(member, epochs=80).warmup_epochs == RECIPES["study"].config.warmup_epochs


def test_options_prevail_over_the_studys_recipe():
    member = Member("b0", "family", 0.0, "b0")
    assert Protocol({}).config(member).learning_rate == RECIPES["study"].config.learning_rate
    assert Protocol({}, options={"learning_rate": 0.5}).config(member).learning_rate == 0.5
