"""Cost of a network as measured on this machine: size, latency, memory, roofline. TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from keras_effnet.study.measurement.load import OtherLoad
from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Protocol
from keras_effnet.study.trial import limit_threads
from keras_effnet.system.machine import cpu_name
from keras_effnet.system.output import captured_output

if TYPE_CHECKING:
    import keras

    from keras_effnet.export.measure.latency import LatencyReport
    from keras_effnet.study.measurement.speed import Clock

ROUNDS = 5  # of timing: four bursts of 5 calls, and one for the files
_LATENCY_SECONDS = 3  # for each file


def measure_costs(
    protocol: Protocol,
    members: Sequence[Member],
    classes: int,
    *,
    told: Callable[[str, int], None] = lambda text, done: None,
) -> list[dict[str, Any]]:
    """Count and time networks on this machine and return their rows of `results.jsonl`.

    Times are medians of warmed-up, synchronized calls on one batch in memory, without tracing. The networks are timed
    in turn, in short bursts, so that other load on the machine affects them alike; how much there was is recorded.
    With progressive resizing the step time is the mean over the image sizes. All networks are in memory at a time.

    Args:
        protocol: `Protocol`.
        members: `Member`s.
        classes: Int, number of classes of the data.
        told: Function that is called with a text and the number of completed steps: one for each network, which is
            traced, and `ROUNDS` of timing.
    """
    with captured_output():
        limit_threads(protocol.threads)
        from keras_effnet.export.measure.latency import benchmark_in_turn
        from keras_effnet.study.measurement.speed import run_in_turn

        subjects: list[_Subject] = []
        for member in members:
            told(f"Tracing {member.name}", len(subjects))
            subjects.append(_subject(protocol, member, classes))
        names, last = ", ".join(member.name for member in members), len(members) + ROUNDS - 1

        def say_round(number: int) -> None:
            told(f"Timing {names} in turn", min(len(members) + number, last))

        with OtherLoad() as load:
            run_in_turn((clock for subject in subjects for clock in subject.clocks), say_round)
            told(f"Timing the .tflite files of {names} in turn", last)
            files = [subject.content for subject in subjects]
            latencies = benchmark_in_turn(files, threads=1, max_seconds=_LATENCY_SECONDS)
        return [_row(protocol, *pair, classes, load.cores) for pair in zip(subjects, latencies, strict=True)]


@dataclass(frozen=True, eq=False)
class _Subject:
    """A network ready to be timed: the clocks of its training steps at each image size and of its prediction."""

    member: Member
    steps: list[Clock]
    prediction: Clock
    content: bytes

    @property
    def clocks(self) -> list[Clock]:
        return [*self.steps, self.prediction]


def _subject(protocol: Protocol, member: Member, classes: int) -> _Subject:
    import numpy as np

    from keras_effnet.export.conversion.float_graph import convert
    from keras_effnet.study.measurement import speed
    from keras_effnet.training.by_task.networks import build_model
    from keras_effnet.training.loop import compile_model

    config = protocol.config(member)
    task: Literal["detection", "classification"] = "detection" if member.detects else "classification"
    model = build_model(config, classes, any_size=member.progressive is not None, task=task)
    compile_model(model, config, steps=1, task=task)
    rng, batch = np.random.default_rng(0), config.batch_size
    one_hot = np.eye(classes, dtype="float32")[rng.integers(classes, size=batch)]
    labels = _box_targets(model, batch) if member.detects else one_hot

    def images(size: int):
        return rng.integers(0, 256, (batch, size, size, 3)).astype("float32")

    steps = [speed.step_clock(model, images(size), labels) for size in member.sizes]
    prediction = speed.prediction_clock(model, images(member.image_size))
    fixed = model if member.progressive is None else build_model(config, classes)
    return _Subject(member, steps, prediction, convert(_for_files(fixed)))


def _for_files(model: keras.Model) -> keras.Model:
    """The network as it is exported: in float32; of a detector with scores, and each layer called once."""
    from keras_effnet.export.conversion.structure import float32_copy, unshared
    from keras_effnet.tasks.recognition import is_detector
    from keras_effnet.training.checkpoints import uncompiled

    return unshared(float32_copy(uncompiled(model))) if is_detector(model) else float32_copy(model)


def _box_targets(model: keras.Model, batch: int) -> dict[str, Any]:
    """Targets of a detector for a batch: one anchor in a hundred has a box of the first class."""
    import numpy as np

    from keras_effnet.training.by_task.objectives import objective

    anchors = model.output["boxes"].shape[1]
    labels = np.where(np.arange(anchors) % 100 == 0, 0, -1).astype("int32")
    boxes = {"labels": np.tile(labels, (batch, 1)), "codes": np.zeros((batch, anchors, 4), "float32")}
    return objective("detection").targets(boxes, 1)


def measure_latencies(protocol: Protocol, members: Sequence[Member], classes: int) -> list[float]:
    """Median latency of networks as float32 `.tflite` files in milliseconds, measured in turn, one thread each."""
    with captured_output():
        limit_threads(protocol.threads)
        from keras_effnet.export.conversion.float_graph import convert
        from keras_effnet.export.conversion.structure import float32_copy
        from keras_effnet.export.measure.latency import benchmark_in_turn
        from keras_effnet.training.by_task.networks import build_model

        files = [convert(float32_copy(build_model(protocol.config(member), classes))) for member in members]
        latencies = benchmark_in_turn(files, threads=1, max_seconds=_LATENCY_SECONDS)
        return [round(latency.median_ms, 4) for latency in latencies]


def _row(
    protocol: Protocol, subject: _Subject, latency: LatencyReport, classes: int, others: float | None
) -> dict[str, Any]:
    from keras_effnet import complexity

    member, config = subject.member, protocol.config(subject.member)
    steps, predicted = [clock.timing() for clock in subject.steps], subject.prediction.timing()
    cost = complexity.count(config.detector or config.spec, classes=classes)
    batch, step_ms = config.batch_size, fmean(step.median_ms for step in steps)
    return {
        "kind": "cost",
        "member": member.name,
        **({"metric": member.watched.title} if member.detects else {}),
        **{name: value for name, value in asdict(member).items() if name != "name"},
        "image_size": member.image_size,
        "classes": classes,
        "params": cost.params,
        "macs": cost.macs,
        "activations": cost.activations,
        "batch_size": batch,
        "step_ms": round(step_ms, 3),
        "step_iqr_ms": round(fmean(step.iqr_ms for step in steps), 3),
        "trace_seconds": round(sum(clock.trace_seconds for clock in subject.steps), 2),
        "train_images_per_second": round(1e3 * batch / step_ms, 2),
        "predict_ms": round(predicted.median_ms, 3),
        "predict_iqr_ms": round(predicted.iqr_ms, 3),
        "predict_images_per_second": round(1e3 * batch / predicted.median_ms, 2),
        "tflite_bytes": len(subject.content),
        "tflite_ms": round(latency.median_ms, 4),
        "tflite_iqr_ms": round(latency.iqr_ms, 4),
        "threads": protocol.threads,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "other_cores": None if others is None else round(others, 2),
    }


def measure_roofline(protocol: Protocol, member: Member, classes: int) -> dict[str, Any]:
    """Measure how fast this machine runs each kind of convolution and return the row of `results.jsonl`."""
    with captured_output():
        limit_threads(protocol.threads)
        from keras_effnet.study.measurement.roofline import measure_kinds

        config = protocol.config(member)
        with OtherLoad() as load:
            kinds = asdict(measure_kinds(config.spec, config.batch_size, classes=classes))
        others = {"cores": os.cpu_count(), "other_cores": None if load.cores is None else round(load.cores, 2)}
        return {"kind": "roofline", "member": member.name, **kinds, **others}
