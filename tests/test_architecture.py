"""Specs expanded into flat blocks: counts, channels, sizes, drop rates, names."""

import json
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from keras_effnet.architecture import ArchitectureSpec, StageSpec, expand
from keras_effnet.baselines import EFFICIENTNET_B0, architecture_spec, list_models
from keras_effnet.errors import UserError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "efficientnet.json").read_text())
ALL = GOLDEN["models"] | GOLDEN["baselines"]
EFFICIENTNETS = list(GOLDEN["models"])


def network(name, **changes):
    return expand(architecture_spec(name, **changes))


def stages(blocks):
    """Blocks by stage: the digits of their names."""
    grouped = {}
    for block in blocks:
        number = int("".join(c for c in block.name.removeprefix("block") if c.isdigit()))
        grouped.setdefault(number, []).append(block)
    return grouped


def test_list_models_names_every_network_once():
    assert sorted(list_models()) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_block_count(name):
    assert len(network(name).blocks) == ALL[name]["blocks"]


@pytest.mark.parametrize("name", ALL)
def test_every_listed_name_expands_at_its_published_size(name):
    spec = architecture_spec(name)
    assert spec.image_size == ALL[name]["resolution"]
    assert expand(spec).stem.in_size == ALL[name]["resolution"]


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_published_factors_and_dropout_reach_the_spec(name):
    spec, golden = architecture_spec(name), ALL[name]
    assert (spec.width, spec.depth, spec.dropout_rate) == (golden["width"], golden["depth"], golden["dropout"])


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_drop_rates_grow_linearly_over_the_blocks_that_exist(name):
    rates = [block.drop_rate for block in network(name).blocks]
    count = ALL[name]["blocks"]
    assert rates == pytest.approx([0.2 * i / count for i in range(count)])
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2 * (count - 1) / count)


def test_b7_drop_rate_ends_below_0_2():
    # Ports that divide by B0's 16 blocks reach 0.675 here.
    assert network("b7").blocks[-1].drop_rate == pytest.approx(0.2 * 54 / 55)


def test_b0_strides_and_sizes():
    net = network("b0")
    assert (net.stem.in_size, net.stem.out_size) == (224, 112)
    last_of_stage = {number: blocks[-1].output for number, blocks in stages(net.blocks).items()}
    assert [conv.out_size for conv in last_of_stage.values()] == [112, 56, 28, 14, 14, 7, 7]
    assert [conv.out_channels for conv in last_of_stage.values()] == [16, 24, 40, 80, 112, 192, 320]
    assert (net.head.in_size, net.head.out_channels, net.features) == (7, 1280, 1280)


def test_only_the_first_block_of_a_stage_has_the_stride():
    strides = [[block.depthwise.stride for block in blocks] for blocks in stages(network("b3").blocks).values()]
    assert [each[0] for each in strides] == [1, 2, 2, 2, 1, 2, 1]
    assert all(stride == 1 for each in strides for stride in each[1:])


@pytest.mark.parametrize("name", ALL)
def test_sizes_and_channels_fit_together(name):
    net = network(name)
    in_channels = net.stem.out_channels
    for block in net.blocks:
        assert block.convs[0].in_channels == in_channels
        in_channels = block.output.out_channels
    sizes = [block.output.out_size for block in net.blocks]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == math.ceil(ALL[name]["resolution"] / 32)
    assert net.features == (net.head.out_channels if net.head else in_channels)


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_blocks_add_their_input_exactly_where_shapes_match(name):
    for block in network(name).blocks:
        same = block.depthwise.stride == 1 and block.convs[0].in_channels == block.project.out_channels
        assert block.residual == same, block.name


def test_squeeze_refers_to_the_blocks_input_not_to_the_expanded_channels():
    blocks = {block.name: block for block in network("b0").blocks}
    # block2a: 16 channels in, expanded to 96; 0.25 x 16 = 4, where 0.25 x 96 would be 24.
    assert blocks["block2a"].se_reduce.out_channels == 4
    assert blocks["block2a"].se_reduce.in_channels == blocks["block2a"].se_expand.out_channels == 96
    assert blocks["block7a"].se_reduce.out_channels == 48


def test_first_stage_has_no_expansion():
    blocks = network("b0").blocks
    assert blocks[0].expand is None
    assert all(block.expand.out_channels == 6 * block.expand.in_channels for block in blocks[1:])


@pytest.mark.parametrize("name", [name for name in EFFICIENTNETS if name.startswith("lite")])
def test_lite_keeps_stem_head_and_the_outer_stages_depth(name):
    net = network(name)
    assert (net.stem.out_channels, net.features) == (32, 1280)
    by_stage = stages(net.blocks)
    assert (len(by_stage[1]), len(by_stage[7])) == (1, 1)
    inner = [2, 2, 3, 3, 4]
    assert [len(by_stage[n]) for n in range(2, 7)] == [math.ceil(ALL[name]["depth"] * repeats) for repeats in inner]


def test_lite_width_scales_the_outer_stages():
    last = network("lite4").blocks[-1]
    assert last.project.out_channels == 448  # 320 * 1.4


def test_lite_has_relu6_no_squeeze_and_its_own_normalisation():
    spec = architecture_spec("lite2")
    assert (spec.activation, spec.pixel_mean, spec.pixel_std) == ("relu6", 127.0, 128.0)
    assert all(block.se_reduce is None and block.se_expand is None for block in expand(spec).blocks)


def test_b4_scales_stem_and_head():
    net = network("b4")
    assert (net.stem.out_channels, net.features) == (48, 1792)


def test_resnet_depth_two_doubles_the_blocks():
    assert len(network("resnet18", depth=2).blocks) == 16
    assert [len(blocks) for blocks in stages(network("resnet18", depth=2).blocks).values()] == [4, 4, 4, 4]


def test_resnet_width_three_triples_the_filters():
    plain, wide = network("resnet18"), network("resnet18", width=3)
    assert wide.stem.out_channels == 192
    assert [b.output.out_channels for b in wide.blocks] == [3 * b.output.out_channels for b in plain.blocks]


def test_resnet_resolution_one_and_a_half_is_336():
    assert architecture_spec("resnet18", resolution=1.5).image_size == 336


def test_resnet_max_pool_halves_the_size_before_the_blocks():
    net = network("resnet18")
    assert (net.stem.out_size, net.blocks[0].first.in_size, net.blocks[-1].output.out_size) == (112, 56, 7)
    assert [bool(block.shortcut) for block in net.blocks] == [False, False, True, False, True, False, True, False]


def test_factors_multiply_what_the_network_has():
    spec = architecture_spec("b4", depth=2, width=0.5)
    assert (spec.depth, spec.width, spec.image_size) == (3.6, 0.7, 380)


def test_phi_applies_the_papers_formula():
    spec = architecture_spec("b0", phi=-1)
    assert spec.depth == pytest.approx(1 / 1.2)
    assert spec.width == pytest.approx(1 / 1.1)
    assert spec.image_size == 196  # 224 / 1.15 = 194.8, to a multiple of 4


def test_phi_zero_is_the_network_itself():
    spec = architecture_spec("b0", phi=0)
    assert replace(spec, name="b0") == replace(architecture_spec("b0"), name="b0")


def test_image_size_has_the_last_word():
    assert architecture_spec("b0", phi=2, resolution=2, image_size=96).image_size == 96


def test_scaling_leaves_a_mark_in_the_name():
    names = {
        architecture_spec("b0", **changes).name
        for changes in ({}, {"phi": 1}, {"phi": 2}, {"depth": 2}, {"width": 2}, {"resolution": 2})
    }
    assert len(names) == 6


def test_a_spec_of_ones_own_is_taken_as_it_is():
    own = ArchitectureSpec(name="own", stages=(StageSpec(3, 2, 4, 16, 2),), stem=8, head=0, image_size=64)
    assert architecture_spec(own) == own
    net = expand(own)
    assert [block.name for block in net.blocks] == ["block1a", "block1b"]
    assert (net.head, net.features, net.blocks[-1].output.out_size) == (None, 16, 16)


def test_block_names_are_unique_beyond_26_repeats():
    names = [block.name for block in network("b0", depth=15).blocks]
    assert len(names) == 15 * 16
    assert len(set(names)) == len(names)
    assert {"block6z", "block6aa", "block6ab", "block6bh"} <= set(names)  # 60 repeats: a..z, aa..az, ba..bh


def test_layer_names_are_those_of_keras_applications():
    names = {conv.name for block in network("b0").blocks for conv in block.convs}
    assert {"block2b_expand_conv", "block2b_dwconv", "block2b_se_reduce", "block2b_se_expand"} <= names
    assert "block1a_project_conv" in names
    assert "block1a_expand_conv" not in names


def test_input_channels_reach_the_stem_alone():
    net = expand(EFFICIENTNET_B0, channels=1)
    assert net.stem.in_channels == 1
    assert net.blocks == expand(EFFICIENTNET_B0).blocks


def test_specs_are_frozen():
    with pytest.raises(FrozenInstanceError):
        EFFICIENTNET_B0.depth = 2.0


def test_unknown_name_suggests_the_closest():
    with pytest.raises(UserError, match=r"Unknown model 'resnet-18'\. Did you mean 'resnet18'\?"):
        architecture_spec("resnet-18")


def test_unknown_field_suggests_the_closest():
    with pytest.raises(UserError, match=r"Did you mean 'activation'\?"):
        architecture_spec("b0", activations="relu")


@pytest.mark.parametrize("dimension", ["depth", "width", "resolution"])
@pytest.mark.parametrize("factor", [0, -1.0, math.nan, math.inf])
def test_factors_that_are_not_positive_numbers_are_refused(dimension, factor):
    with pytest.raises(UserError, match=dimension):
        architecture_spec("b0", **{dimension: factor})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 31}, "at least 32 pixels, got 31"),
        ({"dropout_rate": 1.0}, r"dropout_rate must lie in \[0, 1\), got 1.0"),
        ({"drop_connect_rate": -0.1}, r"drop_connect_rate must lie in \[0, 1\), got -0.1"),
        ({"padding": "valid"}, "Unknown padding 'valid'"),
        ({"stages": ()}, "no stages"),
    ],
)
def test_fields_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        architecture_spec("b0", **changes)


@pytest.mark.parametrize("field", ["kernel", "stride", "expand", "filters", "repeats"])
def test_a_stage_needs_at_least_one_of_everything(field):
    with pytest.raises(UserError, match="at least 1"):
        replace(EFFICIENTNET_B0.stages[0], **{field: 0})


def test_unknown_block_is_refused():
    with pytest.raises(UserError, match=r"Did you mean 'mbconv'\?"):
        StageSpec(3, 1, 1, 16, 1, block="mbconv2")
