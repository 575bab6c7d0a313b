"""Roofline: each shape of convolution timed once and weighted by its count, against measured peaks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.block_specs import ConvSpec
from keras_effnet.complexity.intensity import Peaks, convolutions, work_by_kind
from keras_effnet.errors import UserError
from keras_effnet.study.measurement import roofline
from keras_effnet.study.measurement.roofline import measure_kinds, measure_peaks

PEAKS = Peaks(gflops=200.0, gbytes_per_s=40.0, device="made up")
SMALL = architecture_spec("b0", depth=0.5, width=0.25, image_size=32)


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, ConvSpec]]:
    """The convolutions that were timed; each took a hundredth of a second for every channel that came in."""
    found = []

    def seconds(kind, conv, batch_size, **options):
        found.append((kind, conv))
        return conv.in_channels / 100

    monkeypatch.setattr(roofline, "_convolution_seconds", seconds)
    return found


def test_a_kinds_rate_is_all_its_flops_over_all_its_time(asked):
    spec = architecture_spec("resnet18", image_size=64)
    measured = measure_kinds(spec, 8, peaks=PEAKS)
    costs = {cost.kind: cost for cost in measured.kinds}
    # Stage by stage: 64 channels in all four; then 64 once and 128 three times, and so on.
    seconds = (4 * 64 + (64 + 3 * 128) + (128 + 3 * 256) + (256 + 3 * 512)) / 100
    assert costs["3x3"].gflops == pytest.approx(2 * 8 * costs["3x3"].macs / seconds / 1e9)
    shortcuts = (64 + 128 + 256) / 100
    assert measured.seconds == pytest.approx(0.03 + seconds + shortcuts + 5.12)
    assert costs["1x1"].seconds_share == pytest.approx(shortcuts / measured.seconds)
    assert sum(cost.seconds_share for cost in measured.kinds) == pytest.approx(1)


def test_a_shape_is_run_once_however_often_it_comes(asked):
    spec = architecture_spec("b0", image_size=64)
    measure_kinds(spec, 8, peaks=PEAKS)
    assert max(Counter(asked).values()) == 1
    # Of 16 blocks, 4b and 4c are alike there, 5b and 5c too, and so are 6b, 6c and 6d.
    assert sum(kind == "depthwise" for kind, _ in asked) == 12
    assert len(asked) < sum(len(convs) for convs in convolutions(spec).values())


def test_counted_and_allowed_are_what_the_spec_and_the_peaks_say(asked):
    measured = measure_kinds(SMALL, 4, classes=10, peaks=PEAKS)
    works = work_by_kind(SMALL, 4, classes=10)
    assert [cost.kind for cost in measured.kinds] == list(works)
    for cost in measured.kinds:
        assert (cost.macs, cost.intensity) == (works[cost.kind].macs, works[cost.kind].intensity)
        assert cost.bound_gflops == PEAKS.bound(cost.intensity)
    assert (measured.model, measured.image_size, measured.batch_size) == (SMALL.name, 32, 4)
    assert measured.peaks == PEAKS


def test_peaks_name_the_device_and_are_no_zeros(monkeypatch):
    monkeypatch.setattr(roofline, "_MATRIX_SIDES", (64, 128))
    monkeypatch.setattr(roofline, "_ARRAY_BYTES", 1 << 20)
    peaks = measure_peaks(runs=5, max_seconds=0.1)
    assert peaks.gflops > 0 and peaks.gbytes_per_s > 0
    assert peaks.device


def test_peaks_count_what_a_product_computes_and_a_sum_moves(monkeypatch):
    """Products of 1024 and 2048 take a second each here, and so does the sum."""
    monkeypatch.setattr(roofline, "_seconds", lambda function, **options: 1.0)
    monkeypatch.setattr(roofline, "_ARRAY_BYTES", 1 << 20)
    peaks = measure_peaks()
    assert peaks.gflops == pytest.approx(2 * 2048**3 / 1e9)
    assert peaks.gbytes_per_s == pytest.approx(3 * 2**20 / 1e9)


def test_a_whole_network_is_measured():
    measured = measure_kinds(SMALL, 2, classes=10, peaks=PEAKS, runs=5, max_seconds=0.01)
    assert measured.seconds > 0
    assert all(cost.gflops > 0 and 0 < cost.seconds_share < 1 for cost in measured.kinds)


CONVS = {
    "dense": ("3x3", ConvSpec("a", "conv", 3, 2, 4, 6, in_size=9)),
    "depthwise": ("depthwise", ConvSpec("a", "conv", 5, 2, 4, 4, in_size=8, depthwise=True)),
    "with bias": ("squeeze-and-excite", ConvSpec("a", "conv", 1, 1, 4, 2, in_size=1, bias=True)),
    "classifier": ("classifier", ConvSpec("a", "conv", 1, 1, 4, 10, in_size=1, bias=True)),
}


@pytest.mark.parametrize("which", CONVS)
def test_what_is_run_is_the_convolution_of_the_spec_as_often_as_asked(which, monkeypatch):
    kind, conv = CONVS[which]
    operation, runs, outputs = roofline._operation(kind, conv), [], []

    def observed(image, kernel, strides, padding):
        output = operation(image, kernel, strides, padding)
        outputs.append(output.shape)
        tf.numpy_function(lambda: runs.append(1) or np.float32(0), [], tf.float32)
        return output

    run = roofline._runner(observed, conv, 3)
    run(7)
    shape = (3, conv.out_channels) if kind == "classifier" else (3, conv.out_size, conv.out_size, conv.out_channels)
    assert set(map(tuple, outputs)) == {shape}
    assert len(runs) == 7


def test_the_classifier_is_a_product_of_matrices():
    image, kernel = tf.random.normal((3, 1, 1, 4)), tf.random.normal((1, 1, 4, 10))
    product = roofline._operation(*CONVS["classifier"])(image, kernel, (1, 1, 1, 1), "SAME")
    convolved = tf.nn.conv2d(image, kernel, 1, "SAME")[:, 0, 0]
    np.testing.assert_allclose(product, convolved, rtol=1e-5)


def test_short_convolutions_are_repeated_within_a_call_and_long_ones_are_not(monkeypatch):
    asked = []

    def seconds_of(call_seconds):
        def seconds(function, **options):
            asked.append(function.args[0])
            return call_seconds * function.args[0]

        return seconds

    conv = CONVS["dense"][1]
    for call_seconds, repeats in ((0.004, 5), (1e-6, 100), (0.5, 1)):
        monkeypatch.setattr(roofline, "_seconds", seconds_of(call_seconds))
        taken = roofline._convolution_seconds("3x3", conv, 1, runs=5, max_seconds=0.1)
        assert asked[-1] == repeats
        assert taken == pytest.approx(call_seconds)


def test_a_batch_of_no_image_is_refused():
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        measure_kinds(SMALL, 0, peaks=PEAKS)


def test_repeats_do_not_run_at_the_same_time():
    """TensorFlow runs ten rounds of a loop at once where they allow it: two cores gave 339 GFLOP/s of a peak of 236."""
    conv = ConvSpec("a", "conv", 3, 1, 4, 4, in_size=8)
    shapes = [tf.TensorSpec(shape) for shape in ((1, 8, 8, 4), (3, 3, 4, 4), (4,))]
    graph = roofline._repeated(tf.nn.conv2d, conv).get_concrete_function(*shapes, tf.TensorSpec((), tf.int32)).graph
    loops = [each.get_attr("parallel_iterations") for each in graph.get_operations() if "While" in each.type]
    assert loops == [1]
