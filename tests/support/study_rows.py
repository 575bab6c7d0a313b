"""Rows of a study's results, with made-up figures."""

from __future__ import annotations

CURVE = [{"val_accuracy": accuracy, "seconds": 10.0} for accuracy in (0.2, 0.5, 0.4, 0.6)]


def cost(member, macs, step_ms, model="b0", axis="compound"):
    names = ("params", "activations", "step_iqr_ms", "train_images_per_second", "predict_ms", "predict_iqr_ms")
    names += ("predict_images_per_second", "tflite_ms", "tflite_iqr_ms", "tflite_bytes", "phi")
    values = dict.fromkeys(names, 1.0) | {"axis": axis, "model": model, "image_size": 64}
    return {"kind": "cost", "member": member, "macs": macs, "step_ms": step_ms, **values}


def training(member, seed, accuracy, seconds=40.0, curve=CURVE, **changes):
    row = {"kind": "training", "member": member, "seed": seed, "accuracy": accuracy, "epochs": 4, "curve": curve}
    row |= {"train_seconds": seconds, "input_bound": 0.25, "energy_joules": None, "peak_memory_mb": 100.0}
    return row | changes


ROWS = [
    cost("large", 8e6, 40.0),
    cost("small", 2e6, 20.0),
    training("small", 1, 0.52),
    training("small", 0, 0.5),
    training("large", 0, 0.6, seconds=80),
    training("large", 1, 0.64, seconds=90),
]
