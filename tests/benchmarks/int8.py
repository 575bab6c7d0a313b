"""Each int8 method on a trained network, with and without correction, as a Markdown table.

    python tests/benchmarks/int8.py FOLDER NETWORK

NETWORK is a run folder or a name such as `lite0`. FOLDER is what it was trained on, class folders, of which 100
training images calibrate and all validation images evaluate; or one as in `accuracy.py`, images and a
`labels.csv`, of which 100 calibrate and all others evaluate. Random weights hide what int8 destroys: never use them.

Time is CPU time of one thread over float32's, of files run in turn; seconds are CPU time to make a file, with
the ranges and the float conversion that it shares with the rows above counted once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from accuracy import labelled_images

from keras_effnet import datasets
from keras_effnet.export.calibration import load_images
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.int8.correction import correct
from keras_effnet.export.int8.equalization import scalable
from keras_effnet.export.int8.fitted_files import equalized, fitted, quantize_fitted
from keras_effnet.export.int8.quantizers import quantize_int8
from keras_effnet.export.measure.cpu_time import time_ratios
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.verification import compare
from keras_effnet.inference import artifacts
from keras_effnet.system.machine import cpu_name
from keras_effnet.system.output import captured_output

CALIBRATION = 100


def splits(folder: Path, size: int) -> tuple[datasets.Split, datasets.Split]:
    """Images to calibrate on and to evaluate on."""
    if (folder / "labels.csv").is_file():
        whole = labelled_images(folder)
        order = np.random.default_rng(0).permutation(len(whole))
        return whole.select(order[:CALIBRATION]), whole.select(order[CALIBRATION:])
    dataset = datasets.load(str(folder), image_size=size)
    return dataset.train.sample(CALIBRATION, 0), dataset.val


def main(folder: str, network: str) -> None:
    artifact = artifacts.load(network)
    chosen = splits(Path(folder), artifact.image_spec.size)
    calibration, held_out = (load_images(part, artifact.image_spec, len(part)) for part in chosen)
    answers = np.asarray(artifact.model.predict(held_out, verbose=0))
    with captured_output():
        graph = ExportSource(artifact.model, calibration).graph("float32")
        baseline = graph.content
    files: list[tuple[str, bytes, float]] = []

    def add(name: str, make: Callable[[], bytes]) -> None:
        started = time.process_time()
        with captured_output():
            content = make()
        files.append((name, content, time.process_time() - started))

    for name, ranges in {"minmax": lambda: graph.minmax, "percentile": lambda: graph.percentile}.items():
        add(name, lambda ranges=ranges: quantize_int8(ranges()))
        add(f"{name}, corrected", lambda plain=files[-1][1]: correct(plain, graph))
    add("fitted", lambda: quantize_fitted(*fitted(graph)))
    if scalable(graph.model):
        add("equalized", lambda: quantize_fitted(*equalized(graph)))
    _, *ratios = time_ratios([baseline, *(content for _, content, _ in files)])
    print("| method | agreement | SQNR | accuracy | time | CPU s |\n|---|---|---|---|---|---|")
    for (name, content, seconds), ratio in zip(files, ratios, strict=True):
        report = compare(answers, TFLiteModel(content).predict(held_out), chosen[1].labels)
        fidelity = f"{report.top1_agreement:.1%} | {report.sqnr_db:.1f} dB | {report.accuracy_tflite:.1%}"
        print(f"| {name} | {fidelity} | {ratio:.2f} | {seconds:.1f} |")
    print(f"\nfloat32: {report.accuracy_keras:.1%} of {report.samples} images. {cpu_name()}.")


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main(*sys.argv[1:])
