"""Training memory: prediction from the spec, memory of the machine, and the largest batch size that fits."""

from dataclasses import replace
from pathlib import Path

import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.detectors import detector_spec
from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec
from keras_effnet.complexity.memory import training_bytes
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.system.machine import host_bytes
from keras_effnet.training.memory import batch_size as sizes
from keras_effnet.training.memory import free_memory, step_memory
from keras_effnet.training.memory.batch_size import automatic_batch_size, fitting_batch_size, predicted_memory
from keras_effnet.training.memory.step_memory import measured_step_bytes

GB = 10**9
B0 = architecture_spec("b0")
TINY = {"model": "lite0", "depth": 0.1, "width": 0.25, "image_size": 32}


# --- the prediction


@pytest.mark.parametrize("name", ["b0", "lite0", "resnet18", "resnet50", "wide_resnet28"])
def test_activations_are_linear_in_the_batch_and_nothing_else_is(name):
    spec = architecture_spec(name)
    one, many = training_bytes(spec, 1), training_bytes(spec, 24)
    assert many.activations == 24 * one.activations
    assert many.total - many.activations == one.total - one.activations


@pytest.mark.parametrize("name", ["b0", "lite0", "resnet18"])
def test_activations_are_quadratic_in_the_size(name):
    spec = architecture_spec(name)
    small, large = (training_bytes(spec, 8, image_size=size) for size in (96, 192))
    # Squeeze-and-excite has one position at any size, but so few values that it does not show.
    assert large.activations == pytest.approx(4 * small.activations, rel=3e-3)
    assert large.parameters == small.parameters


def test_weights_take_four_bytes_each_and_adam_twice_as_much_again():
    memory = training_bytes(B0, 1)
    # keras-team's table of EfficientNet: 5,288,548 trainable, 5,330,564 with statistics
    assert memory.parameters == 4 * 5_330_564
    assert memory.gradients == 4 * 5_288_548
    assert memory.optimizer == 8 * 5_288_548
    assert training_bytes(B0, 1, optimizer_slots=1).optimizer == 4 * 5_288_548
    assert training_bytes(B0, 1, ema=True).parameters == 4 * (5_330_564 + 5_288_548)


def test_a_network_small_enough_to_count_by_hand():
    stages = (StageSpec(3, 2, 2, 16, 1, se_ratio=0.25),)
    spec = ArchitectureSpec(name="hand", stages=stages, stem=8, head=0, image_size=32)
    pixels = 2 * 3 * 32 * 32
    stem = 3 * 8 * 16 * 16  # convolved, normalized, activated
    expand = 3 * 16 * 16 * 16
    depthwise = 4 * 16 * 8 * 8  # and once more, weighted by the gate
    gate = 3 * 2 + 16
    project = 2 * 16 * 8 * 8  # no activation
    by_hand = 4 * (pixels + stem + expand + depthwise + gate + project)
    # Over what is counted comes what was measured: 15%, no more and no less than a quarter.
    assert 1 < training_bytes(spec, 1).activations / by_hand < 1.25
    swish, relu = training_bytes(spec, 1), training_bytes(replace(spec, activation="relu"), 1)
    saved = 4 * (8 * 256 + 16 * 256 + 16 * 64 + 2)  # a relu knows its slope from its output
    factor = swish.activations / by_hand
    assert swish.activations - relu.activations == pytest.approx(factor * saved, abs=2)
    # Under mixed precision pixels and what normalization reads stay at four bytes, all else takes two.
    wide = pixels + 8 * 256 + 16 * 256 + 16 * 64 + 16 * 64
    half = training_bytes(spec, 1, precision="mixed_bfloat16")
    assert half.activations == pytest.approx(factor * (by_hand + 4 * wide) / 2, abs=2)


def test_half_precision_halves_all_but_the_pixels_and_what_normalization_reads():
    full, half = training_bytes(B0, 1), training_bytes(B0, 1, precision="mixed_bfloat16")
    assert half.parameters == full.parameters
    assert 0.5 < half.activations / full.activations < 0.7
    assert training_bytes(B0, 1, precision="mixed_float16") == half


def test_the_program_lies_in_the_memory_of_the_host():
    cpu, gpu = training_bytes(B0, 4), training_bytes(B0, 4, device="gpu")
    assert gpu.program == 0
    assert cpu.total - gpu.total == cpu.program > 0
    deeper = training_bytes(architecture_spec("b4"), 4)
    assert deeper.program > cpu.program


@pytest.mark.parametrize(
    ("name", "size", "batch_size", "width", "measured"),
    [
        ("b0", 32, 8, 1, 0.685),
        ("b0", 64, 32, 1, 0.957),
        ("b0", 224, 8, 1, 1.451),
        ("b0", 224, 16, 1, 2.214),
        ("b0", 128, 16, 0.5, 0.856),
        ("lite0", 128, 16, 1, 0.811),
        ("resnet18", 32, 8, 1, 0.437),
        ("resnet18", 224, 16, 1, 0.906),
    ],
)
def test_the_prediction_is_within_5_percent_of_what_was_measured(name, size, batch_size, width, measured):
    # By `measured_step_bytes`, with AdamW and 1000 classes in float32 on two cores of an AMD EPYC.
    spec = architecture_spec(name, width=width)
    assert training_bytes(spec, batch_size, image_size=size).total == pytest.approx(measured * GB, rel=0.05)


SMALL = {"width": 32, "cells": 1, "head_depth": 2, "backbone": architecture_spec("resnet18", depth=0.5, width=0.25)}


@pytest.mark.parametrize(
    ("name", "changes", "batch_size", "measured"),
    [
        ("det-lite0", {"image_size": 128, "classes": 3}, 8, 0.951),
        ("det-lite0", {"image_size": 320, "classes": 3}, 8, 2.130),
        ("det-lite0", {"image_size": 320, "classes": 90}, 4, 1.480),
        ("det-lite0", {"image_size": 96, "classes": 10, **SMALL}, 16, 0.379),
        ("det-d0", {"image_size": 256, "classes": 3}, 4, 1.653),
    ],
)
def test_the_prediction_of_a_detector_is_within_7_percent_of_what_was_measured(name, changes, batch_size, measured):
    # By `measured_step_bytes`, with AdamW in float32, on two cores of an AMD EPYC.
    predicted = training_bytes(detector_spec(name, **changes), batch_size)
    assert predicted.total == pytest.approx(measured * GB, rel=0.07)


def test_memory_is_told_in_words():
    memory = training_bytes(B0, 32, device="gpu")
    assert str(memory).startswith(f"{memory.total / 1e9:.1f} GB (activations {memory.activations / 1e9:.1f}, ")
    assert "program" not in str(memory)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "float16"}, "precision"),
        ({"device": "tpu"}, "device"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_is_wrong_is_named(options, words):
    with pytest.raises(UserError, match=words):
        training_bytes(B0, **({"batch_size": 1} | options))


# --- what the machine has


def machine(root: Path, *, available: int, cgroup: str = "", files: dict[str, str] | None = None) -> Path:
    """A root folder with `proc` and `sys` of a machine, sizes in bytes."""
    contents = {
        "proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n",
        "proc/self/cgroup": cgroup,
    }
    for name, text in (contents | (files or {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_control_groups_the_systems_figure_counts(tmp_path):
    assert host_bytes(machine(tmp_path, available=8 * 2**30)) == (8 * 2**30, "memory")


@pytest.mark.parametrize("group", ["/", "/box/inner", "/hidden/from/inside"])
def test_a_container_of_version_2_is_no_larger_than_its_limit(tmp_path, group):
    root = machine(
        tmp_path,
        available=8 * 2**30,
        cgroup=f"0::{group}\n",
        files={
            "sys/fs/cgroup/memory.max": str(4 * 2**30),
            "sys/fs/cgroup/memory.current": str(3 * 2**30),
            "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2**30}\n",  # cache, which yields
            "sys/fs/cgroup/box/inner/memory.max": "max\n",
            "sys/fs/cgroup/box/inner/memory.current": "5",
        },
    )
    assert host_bytes(root) == (2 * 2**30, "memory of the container")


def test_the_tightest_group_on_the_way_up_counts(tmp_path):
    root = machine(
        tmp_path,
        available=8 * 2**30,
        cgroup="0::/box/inner\n",
        files={
            "sys/fs/cgroup/box/memory.max": str(2**30),
            "sys/fs/cgroup/box/memory.current": "0",
            "sys/fs/cgroup/box/inner/memory.max": str(6 * 2**30),
            "sys/fs/cgroup/box/inner/memory.current": "0",
        },
    )
    assert host_bytes(root)[0] == 2**30


def test_a_container_of_version_1_is_no_larger_than_its_limit(tmp_path):
    root = machine(
        tmp_path,
        available=8 * 2**30,
        cgroup="5:devices:/\n4:cpu,memory:/box\n0::/\n",
        files={
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(4 * 2**30),
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(3 * 2**30),
            "sys/fs/cgroup/memory/box/memory.stat": f"total_inactive_file {2**30}\n",
        },
    )
    assert host_bytes(root) == (2 * 2**30, "memory of the container")


def test_a_limit_beyond_the_machine_is_none(tmp_path):
    files = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
    }
    root = machine(tmp_path, available=2**30, cgroup="4:memory:/\n", files=files)
    assert host_bytes(root) == (2**30, "memory")


def test_a_gpu_is_asked_where_one_trains(monkeypatch):
    monkeypatch.setattr(free_memory, "trains_on_gpu", lambda: True)
    monkeypatch.setattr(free_memory, "_gpus", lambda: [5 * GB, 9 * GB])
    assert free_memory.available_bytes() == (5 * GB, "GPU memory")
    monkeypatch.setattr(free_memory, "_gpus", list)
    with pytest.raises(UserError, match="batch size"):
        free_memory.available_bytes()


# --- the batch size that fits


class Line:
    """Memory of `base + image * batch_size`, and what was asked of it."""

    def __init__(self, base: float, image: float, limit: float = float("inf"), curve: float = 0):
        self.base, self.image, self.limit, self.curve, self.asked = base, image, limit, curve, []

    def __call__(self, size: int) -> int:
        self.asked.append(size)
        taken = self.base + self.image * size + self.curve * size**2
        if taken > self.limit:
            raise MemoryError
        return int(taken)


def test_the_largest_power_of_two_within_the_share():
    line = Line(1 * GB, 0.1 * GB)
    # (0.8 * 20 - 1) / 0.1 = 150
    assert fitting_batch_size(line, 20 * GB, largest=1024) == 128
    assert fitting_batch_size(Line(1 * GB, 0.1 * GB), 20 * GB, largest=1024, share=0.3) == 32
    # Two for the line, one for the answer.
    assert line.asked == [16, 4, 128]


def test_a_budget_that_is_met_exactly_fits():
    assert fitting_batch_size(Line(0, 10), 1000, largest=64, share=0.64) == 64


@pytest.mark.parametrize("largest", [1, 3, 16, 100, 128])
def test_no_more_than_the_largest(largest):
    line = Line(1, 1)
    size = fitting_batch_size(line, 10**6, largest=largest)
    assert size == 2 ** (largest.bit_length() - 1)
    assert max(line.asked) <= largest and len(line.asked) <= 3


def test_what_the_line_promises_is_measured_before_it_is_believed():
    line = Line(0, 10, curve=1)  # the line sees 10 + 20 an image, and expects 32 to fit into 1000
    assert fitting_batch_size(line, 1000, largest=64, share=1.0) == 16
    assert 32 in line.asked


def test_a_measurement_that_ran_out_of_memory_is_a_size_that_does_not_fit():
    assert fitting_batch_size(Line(0, 10, limit=90), 10**9, largest=64) == 8
    assert fitting_batch_size(Line(0, 10, limit=600), 1100, largest=64) == 32


def test_sizes_below_the_first_are_found_too():
    assert fitting_batch_size(Line(0, 10), 25, largest=64, share=1.0) == 2


def test_memory_that_does_not_grow_sets_no_bound():
    assert fitting_batch_size(Line(10, 0), 100, largest=64) == 64


def test_an_image_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="smaller network"):
        fitting_batch_size(Line(100, 1), 100, largest=64)


# --- auto


@pytest.fixture
def free(monkeypatch):
    def set_free(size: float):
        monkeypatch.setattr(sizes, "available_bytes", lambda: (int(size), "memory"))
        monkeypatch.setattr(sizes, "trains_on_gpu", lambda: False)

    return set_free


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the other process: B0 as predicted, a fifth more."""
    asked = []

    def measure(config, batch_size, classes, **_):
        asked.append(batch_size)
        return int(1.2 * training_bytes(config.spec, batch_size, classes=classes).total)

    monkeypatch.setattr(sizes, "measured_step_bytes", measure)
    return asked


@pytest.mark.parametrize(("images", "size"), [(5000, 256), (100_000, 256), (1437, 64), (100, 4), (3, 1)])
def test_auto_leaves_enough_steps_an_epoch_and_measures_nothing_where_memory_abounds(free, measured, images, size):
    free(1000 * GB)
    chosen, why = automatic_batch_size(TrainConfig(image_size=64), 10, images)
    assert chosen == size and not measured
    assert why.startswith(f"Batch size {size}: ") and "predicted" in why and "1000.0 GB free memory" in why
    assert ("16 steps" in why) == (size < 256)


def test_auto_measures_where_memory_is_scarce(free, measured):
    free(8 * GB)
    chosen, why = automatic_batch_size(TrainConfig(), 10, 50_000)
    b0 = TrainConfig().spec
    budget = 0.8 * 8 * GB
    assert 1.2 * training_bytes(b0, chosen, classes=10).total <= budget < 1.2 * training_bytes(b0, 2 * chosen).total
    assert chosen in measured
    assert "measured" in why and "80%" in why and "8.0 GB free memory" in why


@pytest.mark.parametrize(
    ("options", "values"),  # that stay for each parameter: the optimizer's and accumulated gradients, averages
    [({}, (2, 0)), ({"optimizer": "sgd"}, (1, 0)), ({"ema": 0.99}, (2, 1)), ({"accumulate": 4}, (3, 0))],
)
def test_the_prediction_follows_the_config(free, options, values):
    free(GB)
    predicted = predicted_memory(TrainConfig(**options, precision="float32"), 8, 1000)
    slots, averages = values
    assert predicted.optimizer == 4 * slots * 5_288_548
    assert predicted.parameters == 4 * (5_330_564 + averages * 5_288_548)


# --- measured


def test_a_process_that_is_killed_is_only_a_failed_measurement(monkeypatch):
    class Killed:
        returncode, stdout, stderr = -9, "", ""

    monkeypatch.setattr(step_memory.subprocess, "run", lambda *args, **options: Killed)
    with pytest.raises(MemoryError):
        measured_step_bytes(TrainConfig(), 8, 10)


def test_a_training_that_fails_for_another_reason_says_which(monkeypatch):
    class Failed:
        returncode, stdout, stderr = 1, "", "Traceback\nkeras_effnet.errors.UserError: No such file: w.h5\n"

    monkeypatch.setattr(step_memory.subprocess, "run", lambda *args, **options: Failed)
    with pytest.raises(UserError, match="No such file"):
        measured_step_bytes(TrainConfig(), 8, 10)


@pytest.mark.slow
def test_a_tiny_step_is_measured():
    taken = measured_step_bytes(TrainConfig(**TINY), 4, 5)
    assert 10e6 < taken < 2e9


@pytest.mark.soak
@pytest.mark.parametrize(
    ("options", "batch_size"),
    [
        ({"model": "b0", "image_size": 64}, 32),
        ({"model": "b0", "image_size": 224}, 8),
        ({"model": "b0", "image_size": 128, "width": 0.5}, 16),
        ({"model": "lite0", "image_size": 128}, 16),
        ({"model": "resnet18", "image_size": 224}, 16),
    ],
)
def test_the_prediction_is_within_30_percent_of_what_is_measured(options, batch_size):
    config = TrainConfig(**options)
    if free_memory.trains_on_gpu():
        pytest.skip("the prediction was calibrated on CPUs")
    measured = measured_step_bytes(config, batch_size, 1000)
    assert training_bytes(config.spec, batch_size).total == pytest.approx(measured, rel=0.3)
