"""The published networks at every precision: real weights on real images, and all of B0 to B7 as files."""

from __future__ import annotations

import csv

import keras
import numpy as np
import pytest

from keras_effnet import datasets
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import synthetic_images
from keras_effnet.export.candidate_trial import try_precision
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.int8.quantizers import quantize_int8
from keras_effnet.export.recipes import PRECISIONS, Settings
from keras_effnet.export.tflite import prepare_inputs
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.verification import Reference
from keras_effnet.inference import artifacts
from keras_effnet.models import efficientnet
from keras_effnet.system import private_api
from keras_effnet.system.output import captured_output

pytestmark = pytest.mark.slow
CALIBRATION = 100


@pytest.fixture(scope="module")
def sample(images_root) -> datasets.Split:
    """300 images of ImageNet, a class each, in an order of no meaning."""
    folder = images_root / "imagenet-sample-300"
    with (folder / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    order = np.random.default_rng(0).permutation(len(rows))
    paths = tuple(str(folder / rows[index]["file"]) for index in order)
    return datasets.Split(paths, np.array([int(rows[index]["index"]) for index in order], "int32"))


@pytest.fixture(
    scope="module", params=["lite0", *(pytest.param(name, marks=pytest.mark.soak) for name in ("lite1", "lite2"))]
)
def published(request, sample) -> tuple[ExportSource, Reference]:
    try:
        artifact = artifacts.load(request.param)
    except UserError as error:
        pytest.skip(str(error))
    numbers = np.arange(len(sample.labels))
    calibration, held_out = sample.select(numbers[:CALIBRATION]), sample.select(numbers[CALIBRATION:])
    return prepare_inputs(artifact.model, calibration, held_out, artifact.image_spec, CALIBRATION, 0)


#                    agreement SQNR least accuracy beside float32
KEPT = {
    "none": (1.0, 80.0, 0.0),
    "float16": (0.995, 40.0, 0.0),
    "dynamic": (0.98, 20.0, -0.015),
    "int8": (0.965, 18.0, -0.015),
}


@pytest.mark.images
@pytest.mark.parametrize("precision", KEPT)
def test_real_networks_keep_their_answers(published, precision):
    source, reference = published
    settings = Settings("uint8" if precision == "int8" else "float32")
    report = try_precision(source, reference, precision, settings).report
    agreement, sqnr_db, accuracy = KEPT[precision]
    assert report.samples == 200 and report.accuracy_keras > 0.85
    assert report.top1_agreement >= agreement
    assert report.sqnr_db >= sqnr_db
    assert report.accuracy_tflite - report.accuracy_keras >= accuracy - 1e-9


@pytest.mark.images
def test_one_step_for_a_whole_kernel_is_caught_by_the_bounds(published):
    source, reference = published
    with captured_output():
        content = private_api.quantize_int8(
            source.graph("float32").minmax,
            input_type="float32",
            float_operators=["SOFTMAX"],
            float_tensors=[],
            per_channel=False,
        )
    assert not PRECISIONS["int8"].meets(reference.compare(TFLiteModel(content)))


@pytest.mark.images
def test_ranges_of_noise_are_caught_by_the_bounds(published):
    source, reference = published
    graph = source.graph("float32")
    noise = np.random.default_rng(0).uniform(0, 255, source.pixels[:40].shape).astype("float32")
    with captured_output():
        content = quantize_int8(FloatGraph(graph.model, noise).minmax)
    assert not PRECISIONS["int8"].meets(reference.compare(TFLiteModel(content)))


@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.soak if n > 1 else ()) for n in range(8)])
def test_every_network_becomes_a_file_of_each_precision(number, tmp_path):
    keras.utils.set_random_seed(0)
    build = getattr(efficientnet, f"EfficientNetB{number}")
    model = build(weights=None, classes=7, input_shape=(64, 64, 3))
    images = synthetic_images((64, 64, 3))
    source = ExportSource(model, images)
    reference = Reference(images, model.predict(images, verbose=0))
    for precision, per_weight in (("none", 4), ("float16", 2), ("int8", 1)):
        # Of random weights only float arithmetic keeps the answer; that int8 runs, and in integers, is what shows here.
        settings = Settings("uint8", method="minmax") if precision == "int8" else Settings()
        trial = try_precision(source, reference, precision, settings)
        assert trial.passed or precision == "int8"
        size = len(trial.candidate.content)
        assert per_weight * 0.95 < size / model.count_params() < per_weight * 1.35
        found = inspect(trial.candidate.content)
        assert found.dynamic == ()
        if precision == "int8":
            assert [island.place for island in found.islands] == ["output"]
            assert len(found.float_tensors) == 2  # what goes into the softmax and what comes out
