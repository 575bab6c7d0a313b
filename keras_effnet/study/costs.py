"""Cost of a network as measured on this machine: size, latency, memory, roofline. TensorFlow."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Protocol
from keras_effnet.study.trial import _start
from keras_effnet.system.machine import cpu_name
from keras_effnet.system.output import captured_output


def measure_cost(protocol: Protocol, member: Member, classes: int) -> dict[str, Any]:
    """Count and time a network on this machine and return its row of `results.jsonl`.

    Times are medians of warmed-up, synchronized calls on one batch in memory; with progressive resizing the step time
    is the mean over its image sizes.
    """
    with captured_output():
        return _measure(protocol, member, classes)


def _measure(protocol: Protocol, member: Member, classes: int) -> dict[str, Any]:
    _start(protocol.threads)
    import numpy as np

    from keras_effnet import complexity
    from keras_effnet.export.conversion.float_graph import convert
    from keras_effnet.export.conversion.structure import float32_copy
    from keras_effnet.export.measure.latency import benchmark
    from keras_effnet.study.measurement import speed
    from keras_effnet.training.loop import compile_model
    from keras_effnet.training.run import build_model

    config = protocol.config(member)
    model = build_model(config, classes, any_size=member.progressive is not None)
    compile_model(model, config, steps=1)
    rng, batch = np.random.default_rng(0), config.batch_size
    labels = np.eye(classes, dtype="float32")[rng.integers(classes, size=batch)]

    def images(size: int):
        return rng.integers(0, 256, (batch, size, size, 3)).astype("float32")

    steps = [speed.training_step(model, images(size), labels) for size in member.sizes]
    predicted = speed.prediction(model, images(member.image_size))
    fixed = model if member.progressive is None else build_model(config, classes)
    content = convert(float32_copy(fixed))
    latency = benchmark(content, threads=1, max_seconds=3)
    cost = complexity.count(config.spec, classes=classes)
    step_ms = fmean(step.median_ms for step in steps)
    return {
        "kind": "cost",
        "member": member.name,
        **{name: value for name, value in asdict(member).items() if name != "name"},
        "image_size": member.image_size,
        "classes": classes,
        "params": cost.params,
        "macs": cost.macs,
        "activations": cost.activations,
        "batch_size": batch,
        "step_ms": round(step_ms, 3),
        "step_iqr_ms": round(fmean(step.iqr_ms for step in steps), 3),
        "train_images_per_second": round(1e3 * batch / step_ms, 2),
        "predict_ms": round(predicted.median_ms, 3),
        "predict_iqr_ms": round(predicted.iqr_ms, 3),
        "predict_images_per_second": round(1e3 * batch / predicted.median_ms, 2),
        "tflite_bytes": len(content),
        "tflite_ms": round(latency.median_ms, 4),
        "tflite_iqr_ms": round(latency.iqr_ms, 4),
        "threads": protocol.threads,
        "cpu": cpu_name(),
    }


def measure_roofline(protocol: Protocol, member: Member, classes: int) -> dict[str, Any]:
    """Measure how fast this machine runs each kind of convolution and return the row of `results.jsonl`."""
    with captured_output():
        _start(protocol.threads)
        from keras_effnet.study.measurement.roofline import measure_kinds

        config = protocol.config(member)
        return {
            "kind": "roofline",
            "member": member.name,
            **asdict(measure_kinds(config.spec, config.batch_size, classes=classes)),
        }
