"""Specs expanded into flat blocks: counts, channels, sizes, drop rates, names."""

import json
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
from keras_effnet.architecture.block_specs import ConvSpec, NormSpec
from keras_effnet.architecture.specs import ACTIVATIONS, ArchitectureSpec, StageSpec, expand
from keras_effnet.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet.json").read_text())
ALL = GOLDEN["models"] | GOLDEN["v2"] | GOLDEN["baselines"]
EFFICIENTNETS = list(GOLDEN["models"])
V2 = list(GOLDEN["v2"])


def network(name, **changes):
    return expand(architecture_spec(name, **changes))


def first_conv(block):
    return next(part for part in block.weighted if isinstance(part, ConvSpec))


def stages(blocks):
    """Blocks by stage: the digits of their names."""
    grouped = {}
    for block in blocks:
        number = int("".join(c for c in block.name.removeprefix("block") if c.isdigit()))
        grouped.setdefault(number, []).append(block)
    return grouped


@pytest.mark.parametrize("name", ALL)
def test_block_count(name):
    assert len(network(name).blocks) == ALL[name]["blocks"]


@pytest.mark.parametrize("name", ALL)
def test_every_listed_name_expands_at_its_published_size(name):
    spec = architecture_spec(name)
    assert spec.image_size == ALL[name]["resolution"]
    assert expand(spec).stem.in_size == ALL[name]["resolution"]


@pytest.mark.parametrize("name", EFFICIENTNETS + V2)
def test_published_factors_and_dropout_reach_the_spec(name):
    spec, golden = architecture_spec(name), ALL[name]
    assert (spec.width, spec.depth, spec.dropout_rate) == (golden["width"], golden["depth"], golden["dropout"])


@pytest.mark.parametrize("name", EFFICIENTNETS + V2)
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
        assert first_conv(block).in_channels == in_channels
        in_channels = block.output.out_channels
    sizes = [block.output.out_size for block in net.blocks]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == math.ceil(ALL[name]["resolution"] / (4 if name == "wide_resnet28" else 32))
    assert net.features == (net.head.out_channels if net.head else in_channels)


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_blocks_add_their_input_exactly_where_shapes_match(name):
    for block in network(name).blocks:
        same = block.depthwise.stride == 1 and first_conv(block).in_channels == block.project.out_channels
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


def test_v2_rounds_channels_to_the_nearest_multiple_of_8():
    # 16 * 1.2 = 19.2 is less than 90% met by 16, which B3 keeps all the same; V1's rule makes it 24.
    widths = {number: blocks[0].output.out_channels for number, blocks in stages(network("v2-b3").blocks).items()}
    assert list(widths.values()) == [16, 40, 56, 112, 136, 232]  # keras.applications' EfficientNetV2B3
    assert (network("v2-b3").stem.out_channels, network("v2-b3").features) == (40, 1536)
    assert network("v2-b3", rounding_floor=0.9).blocks[0].output.out_channels == 24


def test_v2_begins_with_fused_blocks_and_ends_with_gated_ones():
    kinds = [(block.weighted[0].kernel, hasattr(block, "depthwise")) for block in network("v2-s").blocks]
    assert kinds == [(3, False)] * 10 + [(1, True)] * 30
    first, second = (network("v2-b0").blocks[index] for index in (0, 1))
    assert first.expand is None and first.project.act  # one convolution does it all
    assert (second.expand.stride, second.project.kernel, second.project.act) == (2, 1, False)
    assert second.expand.out_channels == 4 * second.expand.in_channels


def test_v2_xl_is_the_authors_table():
    # effnetv2_configs.py of google/automl: repeats and output channels of its seven stages.
    by_stage = stages(network("v2-xl").blocks)
    assert [len(blocks) for blocks in by_stage.values()] == [4, 8, 8, 16, 24, 32, 8]
    assert [blocks[0].output.out_channels for blocks in by_stage.values()] == [32, 64, 96, 192, 256, 512, 640]


@pytest.mark.parametrize(("name", "mean"), [("v2-b0", 123.675), ("v2-s", 128.0), ("v2-xl", 128.0)])
def test_v2_normalises_as_its_weights_need(name, mean):
    spec = architecture_spec(name)
    assert spec.bn_momentum == 0.9
    assert np.ravel(spec.pixel_mean)[0] == pytest.approx(mean)


def test_b4_scales_stem_and_head():
    net = network("b4")
    assert (net.stem.out_channels, net.features) == (48, 1792)


RESNETS = [name for name in ALL if "resnet" in name]


@pytest.mark.parametrize("name", RESNETS)
def test_depth_two_doubles_the_layers_of_the_blocks(name):
    def layers(net):
        return {number: sum(len(block.branch) for block in blocks) for number, blocks in stages(net.blocks).items()}

    assert layers(network(name, depth=2)) == {number: 2 * count for number, count in layers(network(name)).items()}


@pytest.mark.parametrize(("name", "depth"), [("resnet18", 18), ("resnet34", 34), ("resnet50", 50)])
def test_a_resnet_has_as_many_layers_as_its_name_says(name, depth):
    blocks = network(name).blocks
    assert 1 + sum(len(block.branch) for block in blocks) + 1 == depth  # stem and classifier; shortcuts do not count
    assert [block.shortcut is not None for block in blocks].count(True) == (4 if name == "resnet50" else 3)


@pytest.mark.parametrize("name", RESNETS)
def test_width_three_triples_the_filters(name):
    plain, wide = network(name), network(name, width=3)
    for narrow, broad in zip(plain.blocks, wide.blocks, strict=True):
        assert [c.out_channels for c in broad.branch] == [3 * c.out_channels for c in narrow.branch]
    assert wide.features == 3 * plain.features
    # The paper widens the groups of a Wide ResNet and not its stem.
    assert wide.stem.out_channels == (1 if name == "wide_resnet28" else 3) * plain.stem.out_channels


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resolution_one_and_a_half_takes_224_to_336(name):
    spec = architecture_spec(name, resolution=1.5)
    assert spec.image_size == 336
    assert expand(spec).blocks[-1].output.out_size == 11  # 10.5, where 7 was


@pytest.mark.parametrize(("name", "share"), [("resnet50", 4), ("wide_resnet50", 2)])
def test_a_bottleneck_is_narrow_inside_and_has_its_stride_on_the_3x3(name, share):
    blocks = stages(network(name).blocks)
    assert [blocks[n][0].output.out_channels for n in blocks] == [256, 512, 1024, 2048]
    for number, (first, *rest) in blocks.items():
        for block in (first, *rest):
            assert [conv.kernel for conv in block.branch] == [1, 3, 1]
            inner = block.output.out_channels // share
            assert [conv.out_channels for conv in block.branch[:2]] == [inner, inner]
        assert [conv.stride for conv in first.branch] == [1, 1 if number == 1 else 2, 1]
        assert first.shortcut.stride == first.branch[1].stride
        assert all(conv.stride == 1 for block in rest for conv in block.branch)


def test_a_wide_resnet_normalizes_before_its_blocks_and_at_the_end():
    net = network("wide_resnet28", width=10)
    assert (net.stem.norm, net.stem.act, net.stem.bias) == (False, False, False)
    assert [block.pre.out_channels for block in net.blocks[:5]] == [16, 160, 160, 160, 160]
    assert [block.output.out_size for block in net.blocks] == [32] * 4 + [16] * 4 + [8] * 4
    assert [bool(block.shortcut) for block in net.blocks] == [True, False, False, False] * 3
    assert net.head == NormSpec("top", 640)


def test_a_head_convolution_brings_its_own_normalization():
    assert network("wide_resnet28", head=128).head == ConvSpec("top", "conv", 1, 1, 64, 128, 8)


def test_resnet_max_pool_halves_the_size_before_the_blocks():
    net = network("resnet18")
    assert (net.stem.out_size, net.blocks[0].branch[0].in_size, net.blocks[-1].output.out_size) == (112, 56, 7)
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
    names = {conv.name for block in network("b0").blocks for conv in block.weighted}
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
        ({"bn_momentum": 1.0}, r"bn_momentum must lie in \[0, 1\), got 1.0"),
        ({"rounding_floor": 1.5}, r"rounding_floor must lie in \[0, 1\], got 1.5"),
        ({"bn_epsilon": 0.0}, "bn_epsilon must be positive, got 0.0"),
        ({"padding": "valid"}, "Unknown padding 'valid'"),
        ({"activation": "hardswish"}, r"Unknown activation 'hardswish'\. Did you mean 'hard_swish'\?"),
        ({"activation": "softmax"}, "Unknown activation 'softmax'"),
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


def test_squeeze_and_excite_outside_mbconv_is_refused():
    with pytest.raises(UserError, match="Only mbconv blocks have squeeze-and-excite; give 'basic' stages se_ratio=0"):
        StageSpec(3, 1, 1, 16, 1, block="basic", se_ratio=0.25)


def test_an_unknown_name_of_the_depthwise_layer_is_refused():
    with pytest.raises(UserError, match=r"Unknown depthwise 'dw'\..*Choose one of: dwconv, dwconv2"):
        StageSpec(3, 1, 6, 16, 1, depthwise="dw")


def test_a_bottleneck_without_inner_channels_is_refused():
    with pytest.raises(UserError, match="inner must be a positive share of the filters, got 0"):
        StageSpec(3, 1, 1, 16, 1, block="bottleneck", inner=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_kerass_and_keeps_shapes(name):
    import keras

    x = keras.ops.reshape(keras.ops.arange(-12.0, 12.0), (2, 2, 2, 3))
    y = keras.activations.get(name)(x)
    assert y.shape == x.shape
    permuted = keras.activations.get(name)(x[..., ::-1])[..., ::-1]
    assert keras.ops.all(keras.ops.isclose(permuted, y))  # no channel sees another
