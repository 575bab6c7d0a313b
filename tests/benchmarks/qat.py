"""Quantization-aware training, pruning and clustering of a published network, as a Markdown table.

    python tests/benchmarks/qat.py FOLDER [NAME]

FOLDER as in `accuracy.py`: images and a `labels.csv`. A hundred images, drawn by a fixed seed, calibrate and train;
all others evaluate. The figures compare files with one another; a hundred images are few to train a network on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from accuracy import labelled_images

from keras_effnet.export.calibration import load_images
from keras_effnet.export.candidate_trial import compressed_size
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.finetune.qat import quantization_aware_training
from keras_effnet.export.finetune.sparsity import cluster, prune
from keras_effnet.export.int8.quantizers import quantize_int8
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.verification import compare
from keras_effnet.inference import artifacts
from keras_effnet.system.output import captured_output

TRAINING = 100
SPARSITIES = (0.25, 0.5, 0.75)


def int8(model, images: np.ndarray) -> bytes:
    """The int8 file of plain calibration."""
    with captured_output():
        return quantize_int8(ExportSource(model, images).graph("uint8").minmax, "uint8")


def files(model, images: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Every way to an int8 file, each begun when the one before was measured."""

    def announce(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    yield "int8, calibrated", int8(model, images)
    yield "int8, trained", quantization_aware_training(model, images, announce=announce).tflite("uint8")
    yield "16 clusters, int8", int8(cluster(model, images, announce=announce).model, images)
    for share in SPARSITIES:
        yield f"{share:.0%} zeros, int8", int8(prune(model, images, share, announce=announce).model, images)


def main(folder: str, name: str = "lite0") -> None:
    artifact = artifacts.load(name)
    source = labelled_images(Path(folder))
    order = np.random.default_rng(0).permutation(len(source.labels))
    chosen = [source.select(part) for part in (order[:TRAINING], order[TRAINING:])]
    training, held_out = (load_images(part, artifact.image_spec, len(part)) for part in chosen)
    answers = artifact.predict(held_out)
    print("| file | bytes | after gzip | top-1 | agreement | SQNR |")
    print("|---|---|---|---|---|---|")
    for method, content in files(artifact.model, training):
        report = compare(answers, TFLiteModel(content).predict(held_out), chosen[1].labels)
        sizes = f"{len(content):,} | {compressed_size(content):,}"
        fidelity = f"{report.top1_agreement:.1%} | {report.sqnr_db:.1f} dB"
        print(f"| {method} | {sizes} | {report.accuracy_tflite:.1%} | {fidelity} |", flush=True)
    print(f"\nfloat32: {report.accuracy_keras:.1%} of {report.samples} images.")


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main(*sys.argv[1:])
