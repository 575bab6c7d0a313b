"""Roofline measurements: throughput of each kind of convolution against the limits of this machine.

TensorFlow, on its first GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import ceil

import tensorflow as tf

from keras_effnet.architecture.block_specs import ConvSpec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.complexity.intensity import KindCost, Peaks, Roofline, Work, convolutions, work_by_kind
from keras_effnet.errors import UserError
from keras_effnet.study.measurement.speed import synchronize
from keras_effnet.system.machine import cpu_name
from keras_effnet.system.timing import measure

_MATRIX_SIDES = (1024, 2048)
_ARRAY_BYTES = 1 << 28  # far more than any cache holds
_ROUNDS = 3  # the best is used: other load on the machine can only lower a peak
_BYTES = 4  # of a float32
# A call into TensorFlow costs as much as a small convolution, so short ones are repeated inside a call.
_CALL_SECONDS, _MOST_REPEATS = 0.02, 100


def _device_name() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return cpu_name()
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def _seconds(function: Callable[[], object], *, runs: int, max_seconds: float) -> float:
    return measure(function, synchronize=synchronize, runs=runs, max_seconds=max_seconds).median_ms / 1e3


def measure_peaks(*, runs: int = 10, max_seconds: float = 0.5) -> Peaks:
    """Measure the peak arithmetic rate and memory bandwidth of this machine, in float32, through TensorFlow.

    The arithmetic rate is that of a product of square matrices, the better of two sizes. The bandwidth is that of
    adding one large array to another in place, which is two reads and a write: writing to memory that was not read
    before would fetch cache lines that are not counted. Each is the best of three medians.

    Args:
        runs: Int, timed runs for each median.
        max_seconds: Float, time limit for each median.

    Returns:
        `Peaks`.
    """
    product = tf.function(tf.matmul)
    matrices = [tf.random.normal((side, side)) for side in _MATRIX_SIDES]
    sums, terms = tf.Variable(tf.zeros(_ARRAY_BYTES // _BYTES)), tf.ones(_ARRAY_BYTES // _BYTES)

    @tf.function
    def add():
        sums.assign_add(terms, read_value=False)

    work = [(partial(product, matrix, matrix), 2 * len(matrix) ** 3) for matrix in matrices]
    timed = partial(_seconds, runs=runs, max_seconds=max_seconds)
    add()  # traces the graph; the products have two warm-up runs
    flops = max(count / timed(function) for _ in range(_ROUNDS) for function, count in work)
    moved = max(3 * _ARRAY_BYTES / timed(add) for _ in range(_ROUNDS))
    return Peaks(flops / 1e9, moved / 1e9, _device_name())


def _dense(image, kernel, strides, padding):
    """Convolution on one pixel, computed like `keras.layers.Dense`."""
    return tf.matmul(image[:, 0, 0], kernel[0, 0])


def _operation(kind: str, conv: ConvSpec) -> Callable:
    """The TensorFlow operation that the Keras layer calls."""
    if kind == "classifier":
        return _dense
    return tf.nn.depthwise_conv2d if conv.depthwise else tf.nn.conv2d


def _repeated(operation: Callable, conv: ConvSpec) -> Callable:
    """A `tf.function` of image, kernel, bias and a number, which runs a convolution so many times in sequence."""

    @tf.function
    def run(image, kernel, bias, repeats):  # as arguments, since constants would be folded
        total = tf.constant(0.0)
        for _ in tf.range(repeats):
            # By default ten rounds of a loop may run at the same time, on as many cores.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            output = operation(image, kernel, (1, conv.stride, conv.stride, 1), "SAME")
            output = tf.nn.bias_add(output, bias) if conv.bias else output
            total += tf.reshape(output, [-1])[0]  # an unused output would be pruned
        return total

    return run


def _runner(operation: Callable, conv: ConvSpec, batch_size: int) -> Callable[[int], object]:
    """Function that runs a convolution on noise a given number of times in sequence."""
    image = tf.random.normal((batch_size, conv.in_size, conv.in_size, conv.in_channels))
    filters = (conv.in_channels, 1) if conv.depthwise else (conv.in_channels, conv.out_channels)
    kernel, bias = tf.random.normal((conv.kernel, conv.kernel, *filters)), tf.random.normal((conv.out_channels,))
    run = _repeated(operation, conv)
    return lambda repeats: run(image, kernel, bias, tf.constant(repeats))


def _convolution_seconds(kind: str, conv: ConvSpec, batch_size: int, *, runs: int, max_seconds: float) -> float:
    run = _runner(_operation(kind, conv), conv, batch_size)
    run(1)  # traces the graph
    once = _seconds(partial(run, 1), runs=1, max_seconds=max_seconds)
    repeats = min(_MOST_REPEATS, ceil(_CALL_SECONDS / once))
    return _seconds(partial(run, repeats), runs=runs, max_seconds=max_seconds) / repeats


def _shape(conv: ConvSpec) -> ConvSpec:
    """Key that is equal for convolutions with the same computation."""
    return replace(conv, prefix="", op="", norm=False, act=False)


def _kind_cost(kind: str, work: Work, seconds: float, total: float, peaks: Peaks) -> KindCost:
    return KindCost(
        kind=kind,
        macs=work.macs,
        intensity=work.intensity,
        gflops=work.flops / seconds / 1e9,
        seconds_share=seconds / total,
        bound_gflops=peaks.bound(work.intensity),
    )


def measure_kinds(
    spec: ArchitectureSpec,
    batch_size: int = 32,
    *,
    classes: int = 1000,
    peaks: Peaks | None = None,
    runs: int = 20,
    max_seconds: float = 0.25,
) -> Roofline:
    """Measure the throughput of each kind of convolution of a network, run alone, forward, in float32.

    Convolutions with the same shape are run once and counted as often as they occur. Other operations are left out:
    normalization, activations, pooling, sums, and the channel-wise product of squeeze-and-excite. An input that fits
    into the cache stays there between runs, so a kind may exceed the memory-bandwidth bound.

    Args:
        spec: `ArchitectureSpec`; its `image_size` is the input size.
        batch_size: Int, number of images.
        classes: Int, outputs of the classifier.
        peaks: `Peaks` of this machine; default: measured.
        runs: Int, timed runs of each convolution; fewer, but at least 5, where they exceed `max_seconds`.
        max_seconds: Float, time limit for each, without tracing.

    Returns:
        A `Roofline`.

    Raises:
        UserError: `batch_size` is below 1.

    Example:

    >>> for cost in measure_kinds(architecture_spec("b0", image_size=64)).kinds:
    ...     print(f"{cost.kind}: {cost.gflops:.0f} of {cost.bound_gflops:.0f} GFLOP/s")
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    peaks = peaks or measure_peaks()
    kinds = convolutions(spec, classes=classes)
    shapes = dict.fromkeys((kind, _shape(conv)) for kind, convs in kinds.items() for conv in convs)
    timed = partial(_convolution_seconds, batch_size=batch_size, runs=runs, max_seconds=max_seconds)
    taken = {(kind, shape): timed(kind, shape) for kind, shape in shapes}
    seconds = {kind: sum(taken[kind, _shape(conv)] for conv in convs) for kind, convs in kinds.items()}
    total = sum(seconds.values())
    works = work_by_kind(spec, batch_size, classes=classes)
    costs = (_kind_cost(kind, works[kind], seconds[kind], total, peaks) for kind in kinds)
    return Roofline(spec.name, spec.image_size, batch_size, peaks, total, tuple(costs))
