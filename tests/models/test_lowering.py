"""Training steps lowered for accelerators, and the reading of such programs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from benchmark_scripts import FOLDER, benchmark
from program_text import hlo, stablehlo

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import expand

SCRIPT = FOLDER / "lowering.py"

# A convolution 3x3 with stride 2, the gradient of its input, and a function that is called twice.
JAX_TEXT = """
  func.func public @main(%arg0: tensor<2x8x8x3xf16> {tf.aliasing_output = 0 : i32}) -> tensor<2x8x8x3xf16> {
    %0 = stablehlo.convolution(%arg0, %1) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {stride = [2, 2]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x8x8x3xf16>, tensor<3x3x3x5xf16>) -> tensor<2x4x4x5xf16> loc(#loc2)
    %3 = stablehlo.convolution(%0, %1) dim_numbers = [b, 0, 1, f]x[0, 1, o, i]->[b, 0, 1, f], window = {lhs_dilate = [2, 2]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x4x4x5xf16>, tensor<3x3x3x5xf16>) -> tensor<2x8x8x3xf16> loc(#loc3)
    %4:2 = call @half(%0) : (tensor<2x4x4x5xf16>) -> (tensor<2x4x4x5xf32>, tensor<f32>) loc(#loc4)
    %5:2 = call @half(%0) : (tensor<2x4x4x5xf16>) -> (tensor<2x4x4x5xf32>, tensor<f32>) loc(#loc5)
    %6 = stablehlo.dot_general %7, %8, contracting_dims = [1] x [0] : (tensor<2x5xf32>, tensor<5x10xf32>) -> tensor<2x10xf32> loc(#loc5)
    return %3 : tensor<2x8x8x3xf16> loc(#loc)
  }
  func.func private @half(%arg0: tensor<2x4x4x5xf16> loc(unknown)) -> tensor<2x4x4x5xf32> {
    %0 = stablehlo.convert %arg0 : (tensor<2x4x4x5xf16>) -> tensor<2x4x4x5xf32> loc(#loc4)
  }
#loc2 = loc("jit(train_step)/jvp(stem_conv)/conv"(#loc1))
#loc3 = loc("jit(train_step)/transpose(jvp(stem_conv))/conv"(#loc1))
#loc4 = loc("jit(train_step)/jvp(stem_bn)/convert"(#loc1))
#loc5 = loc("jit(train_step)/jvp(top_bn)/convert"(#loc1))
"""  # noqa: E501

XLA_TEXT = """
%region (a: f32[]) -> f32[] {
  ROOT %add = f32[] add(f32[] %a, f32[] %a)
}
ENTRY %main {
  %x = f16[2,8,8,3]{3,2,1,0} parameter(0)
  %k = f16[3,3,1,3]{3,2,1,0} parameter(1)
  %dw = f16[2,8,8,3]{3,2,1,0} convolution(f16[2,8,8,3]{3,2,1,0} %x, f16[3,3,1,3]{3,2,1,0} %k), window={size=3x3}, dim_labels=b01f_01io->b01f, feature_group_count=3, metadata={op_name="b0_1/block1a_dwconv_1/depthwise"}
  %dead = f32[2,8,8,3]{3,2,1,0} convert(f16[2,8,8,3]{3,2,1,0} %dw)
  ROOT %out = (f16[2,8,8,3]{3,2,1,0}) tuple(f16[2,8,8,3]{3,2,1,0} %dw)
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def lowering():
    """The benchmark as a module."""
    return benchmark("lowering")


def test_products_of_stablehlo_are_counted_by_hand():
    forward, backward, *_, product = (each for each in stablehlo(JAX_TEXT) if each.name != "convert")
    assert forward.macs == 2 * 4 * 4 * 5 * 27
    assert backward.macs == 2 * 8 * 8 * 3 * 9 * 5 // 4  # of 4 inputs between which the stride left zeros, one counts
    assert product.macs == 2 * 10 * 5
    assert forward.bytes == 2 * (2 * 64 * 3 + 27 * 5 + 2 * 16 * 5)


def test_a_function_counts_for_every_layer_that_calls_it(lowering):
    classes = {"stem_bn": "BatchNormalization", "top_bn": "Other"}
    copies = [each for each in stablehlo(JAX_TEXT) if each.name == "convert"]
    assert [lowering.layer_of(each.scope, classes) for each in copies] == ["BatchNormalization", "Other"]
    assert all(lowering.is_map(each.operands[0], 2) for each in copies)


def test_hlo_leaves_out_what_nobody_reads(lowering):
    operations = {each.name: each for each in hlo(XLA_TEXT)}
    assert "convert" not in operations
    assert operations["convolution"].macs == 2 * 8 * 8 * 3 * 9
    assert (
        lowering.layer_of(operations["convolution"].scope, {"block1a_dwconv": "DepthwiseConv2D"}) == "DepthwiseConv2D"
    )


def test_only_transposes_that_move_elements_count(lowering):
    line = "%1 = stablehlo.transpose %0, dims = [0, 1, 3, 2, 4] : ({}) -> {}"
    kinds = ("tensor<3x3x1x32x1xf16>", "tensor<3x3x32x1x1xf16>"), ("tensor<3x3x4x32x1xf16>", "tensor<3x3x32x4x1xf16>")
    found = [stablehlo("func.func public @main(\n" + line.format(*pair))[0] for pair in kinds]
    assert [lowering.moves(each) for each in found] == [False, True]


@pytest.fixture
def findings(lowering):
    fine = {"float32 product": {"Dense": 3}, "float32 copy": {"BatchNormalization": 8}, "transpose": {}}
    return lowering.Findings(
        name="b0",
        policy="mixed_float16",
        target="cuda",
        image_size=64,
        batch=8,
        layers={"Dense": 1, "BatchNormalization": 2},
        half_products=10,
        found=fine,
        converts={},
        still=0,
        callbacks=(),
        state=5,
        donated=5,
        stable=True,
        forward_macs=1000,
        counted_macs=1001,
        forward_bytes=1,
        step_macs=1,
        step_bytes=1,
        bound=1.0,
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"found": {"float32 product": {"DepthwiseConv2D": 1}}}, "DepthwiseConv2D"),
        ({"found": {"float32 copy": {"BatchNormalization": 9}}}, "allowed are 8"),
        ({"found": {"transpose": {"Conv2D": 1}}}, "transpose"),
        ({"callbacks": ("xla_python_callback",)}, "xla_python_callback"),
        ({"donated": 4}, "not donated"),
        ({"stable": False}, "anew"),
        ({"forward_macs": 900}, "complexity.count"),
    ],
)
def test_each_regression_is_named(lowering, findings, change, word):
    assert lowering.regressions(findings) == []
    (line,) = lowering.regressions(replace(findings, **change))
    assert word in line


@pytest.mark.slow
@pytest.mark.parametrize(("target", "policies"), [("cuda", ("mixed_float16",)), ("xla", ("mixed_bfloat16",))])
def test_a_training_step_is_lowered_without_regressions(tmp_path, target, policies):
    """Three stages of B0 have every kind of layer. The script ends with an error if anything is not allowed."""
    if target != "xla" and importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    path = tmp_path / "findings.json"
    command = [sys.executable, str(SCRIPT), "b0", "--stages=3", "--size=64", f"--findings={path}"]
    command += ["--target", target, "--policy", *policies]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    b0 = architecture_spec("b0")
    network = expand(replace(b0, stages=b0.stages[:3]))
    products = 1 + sum(len(block.weighted) for block in network.blocks) + 2  # stem, head, classifier
    for found in json.loads(path.read_text())["findings"]:
        # Each product has two gradients, but for the stem, whose images have none.
        assert found["half_products"] + found["found"]["float32 product"]["Dense"] == 3 * products - 1
