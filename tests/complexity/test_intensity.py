"""Arithmetic intensity against hand-computed figures, and kinds of convolution that cover all of them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.block_specs import ConvSpec
from keras_effnet.architecture.specs import expand
from keras_effnet.complexity.counting import count
from keras_effnet.complexity.intensity import KindCost, Peaks, Roofline, convolutions, work, work_by_kind

NAMES = ("b0", "v2-b0", "lite0", "resnet18", "resnet50", "mobilenetv2", "wide_resnet28")


def test_a_pointwise_convolution_by_hand():
    conv = ConvSpec("block2a_expand", "conv", 1, 1, 16, 96, in_size=32)
    done = work(conv, batch_size=2)
    assert done.macs == 16 * 96 * 1024 == 1_572_864
    assert done.flops == 2 * 2 * 1_572_864
    assert done.bytes == 4 * (2 * 1024 * (16 + 96) + 16 * 96) == 923_648
    assert done.intensity == pytest.approx(6.8115, abs=1e-4)


def test_a_depthwise_convolution_by_hand():
    conv = ConvSpec("block2a", "dwconv", 3, 2, 96, 96, in_size=32, depthwise=True)
    done = work(conv, batch_size=2)
    assert done.macs == 9 * 96 * 256 == 221_184
    assert done.flops == 2 * 2 * 221_184
    assert done.bytes == 4 * (2 * 96 * (1024 + 256) + 9 * 96) == 986_496
    assert done.intensity == pytest.approx(0.8968, abs=1e-4)


def test_a_strided_shortcut_reads_a_quarter_of_its_pixels():
    conv = ConvSpec("block2a_shortcut", "conv", 1, 2, 64, 128, in_size=56)
    assert work(conv, batch_size=1).bytes == 4 * (28 * 28 * (64 + 128) + 64 * 128)


def test_a_bias_is_computed_and_read():
    conv = ConvSpec("block1a_se", "reduce", 1, 1, 32, 8, in_size=1, norm=False, bias=True)
    done = work(conv, batch_size=3)
    assert done.macs == 32 * 8 + 8
    assert done.bytes == 4 * (3 * (32 + 8) + 32 * 8 + 8)


def test_weights_weigh_less_the_larger_the_batch():
    conv = ConvSpec("top", "conv", 1, 1, 320, 1280, in_size=2)
    one, many = work(conv, 1), work(conv, 64)
    assert many.flops == 64 * one.flops
    assert many.bytes < 64 * one.bytes
    assert many.intensity > one.intensity


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("name", NAMES)
def test_the_kinds_have_all_macs_of_the_network(name, size):
    spec = architecture_spec(name, image_size=size)
    kinds = work_by_kind(spec, 8, classes=10)
    assert sum(kind.macs for kind in kinds.values()) == count(spec, classes=10).macs
    assert all(kind.flops == 2 * 8 * kind.macs for kind in kinds.values())


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        (
            "b0",
            ["stem", "depthwise", "squeeze-and-excite", "project 1x1", "expand 1x1", "head 1x1", "classifier"],
        ),
        (
            "v2-b0",
            [
                *("stem", "fused 3x3", "project 1x1", "expand 1x1", "depthwise", "squeeze-and-excite"),
                *("head 1x1", "classifier"),
            ],
        ),
        ("mobilenetv2", ["stem", "depthwise", "project 1x1", "expand 1x1", "head 1x1", "classifier"]),
        ("resnet18", ["stem", "3x3", "1x1", "classifier"]),
        ("resnet50", ["stem", "1x1", "3x3", "classifier"]),
        ("wide_resnet28", ["stem", "3x3", "1x1", "classifier"]),
    ],
)
def test_each_network_has_the_kinds_that_its_blocks_are_made_of(name, kinds):
    assert list(convolutions(architecture_spec(name))) == kinds


def test_the_convolutions_of_b0_by_kind():
    numbers = {kind: len(convs) for kind, convs in convolutions(architecture_spec("b0")).items()}
    # 16 blocks, of which the first does not expand.
    assert numbers == {
        "stem": 1,
        "depthwise": 16,
        "squeeze-and-excite": 32,
        "project 1x1": 16,
        "expand 1x1": 15,
        "head 1x1": 1,
        "classifier": 1,
    }


@pytest.mark.parametrize("name", ["b0", "lite0", "mobilenetv2"])
@pytest.mark.parametrize("size", [64, 224])
def test_depthwise_does_less_with_a_byte_than_the_pointwise_convolutions_beside_it(name, size):
    for block in expand(architecture_spec(name, image_size=size)).blocks:
        pointwise = [work(conv, 32).intensity for conv in (block.expand, block.project) if conv]
        assert work(block.depthwise, 32).intensity < min(pointwise), block.name


def test_the_roofline_is_a_slope_and_a_ceiling():
    peaks = Peaks(gflops=200, gbytes_per_s=40, device="made up")
    assert peaks.bound(2.5) == 100
    assert peaks.bound(5) == peaks.bound(50) == 200


def test_a_roofline_is_written_as_json():
    cost = KindCost("depthwise", 100, 2.5, 20.0, 1.0, 100.0)
    roofline = Roofline("b0", 64, 32, Peaks(200, 40, "made up"), 0.25, (cost,))
    read = json.loads(json.dumps(asdict(roofline)))
    assert read["kinds"][0] == asdict(cost)
    assert (read["peaks"]["gflops"], read["seconds"]) == (200, 0.25)
