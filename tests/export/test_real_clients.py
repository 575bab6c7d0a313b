"""Real clients run exactly those files that the verdicts say, with the numbers of LiteRT on this CPU.

CONTRIBUTING.md tells how to have the clients that need an interpreter of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from client_runs import ClientRun
from client_verdicts import FILES, VERDICTS

from keras_effnet.errors import UserError
from keras_effnet.export.calibration import load_images
from keras_effnet.export.description import About, describe
from keras_effnet.export.outputs import CLASSIFIER
from keras_effnet.export.recipes import PRECISIONS, Settings
from keras_effnet.export.tflite import prepare_inputs
from keras_effnet.export.tflite_file import clients
from keras_effnet.export.tflite_file.clients import REFUSES
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.inference import artifacts
from keras_effnet.tasks import TASKS

pytestmark = [pytest.mark.slow, pytest.mark.images]

IMAGES = int(os.environ.get("CLIENT_IMAGES", "4"))
CALIBRATION = 10
REFERENCE = ClientRun("interpreter", clients.CPU, "litert_interpreter.py", "ai_edge_litert")
COMPILED = "litert_compiled_model.py"
# Run without an error, with other scores: the rules refuse such a file.
WRONG = {("TFLite Micro", kind) for kind in (("mixed", "float32"), ("mixed", "uint8"))}
LEFT_OUT = {("dynamic", "float32"), ("int16x8", "float32")}  # by XNNPACK, in part or as a whole
RUNS = (
    ClientRun(
        "built-in kernels",
        clients.CPU,
        "litert_interpreter.py",
        "ai_edge_litert",
        environment={"KERNELS": "builtin"},
        same_integers=False,
    ),
    ClientRun("compiled model", clients.CPU, COMPILED, "ai_edge_litert"),
    ClientRun(
        "compiled model on a GPU",
        clients.GPU,
        COMPILED,
        "ai_edge_litert",
        environment={"ACCELERATOR": "gpu"},
        needs="VK_ICD_FILENAMES",
        same_integers=False,
    ),
    ClientRun("ARM64", clients.CPU, "litert_interpreter.py", "ai_edge_litert", "ARM64_PYTHON", needs="ARM64_PYTHON"),
    ClientRun("MediaPipe", clients.MEDIAPIPE, "mediapipe_classifier.py", "mediapipe", "MEDIAPIPE_PYTHON"),
    ClientRun(
        "TFLite Micro",
        clients.MICRO,
        "tflite_micro_interpreter.py",
        "tflite_micro",
        "TFLITE_MICRO_PYTHON",
        same_integers=False,
    ),
)


@pytest.fixture(scope="module")
def lite0(images_root):
    """Lite0 with ImageNet weights."""
    try:
        return artifacts.load("lite0")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def files(lite0, images_root, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Lite0 at each precision and input type, by the cheapest method of each."""
    folder = tmp_path_factory.mktemp("lite0")
    sample = str(images_root / "imagenet-sample-300")
    source, _ = prepare_inputs(lite0.model, sample, None, lite0.image_spec, CALIBRATION, 0)
    about = About().completed("lite0", 1000, lite0.class_names)
    made = {}
    for precision, input_type in FILES:
        choices = {"int8": {"method": "minmax"}, "mixed": {"float_blocks": ("stem",)}}.get(precision, {})
        candidate = next(PRECISIONS[precision].candidates(source, Settings(input_type=input_type, **choices)))
        made[precision, input_type] = folder / f"lite0_{precision}_{input_type}.tflite"
        made[precision, input_type].write_bytes(describe(candidate.content, about, CLASSIFIER))
    return made


@pytest.fixture(scope="module")
def pixels(images_root, lite0, tmp_path_factory) -> Path:
    """Images of the sample as a client gets them: uint8, of the size of the network."""
    images = load_images(str(images_root / "imagenet-sample-300"), lite0.image_spec, IMAGES, 1)
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.round(images).astype("uint8"))
    return path


@pytest.fixture(scope="module")
def expected(files, pixels) -> dict[str, np.ndarray]:
    """Scores of LiteRT's Interpreter, by file name."""
    found = REFERENCE.answers(pixels, list(files.values()))
    return {name: np.array(one["scores"]) for name, one in found.items()}


def test_the_verdicts_of_the_table_are_those_of_the_rules(files):
    for kind, path in files.items():
        verdicts = {one.client: one.expected for one in inspect(path).clients}
        assert verdicts == {client: row[kind] for client, row in VERDICTS.items()}, kind


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_client_runs_the_files_that_it_is_said_to_accept_and_no_others(run, files, pixels, expected):
    if run.missing:
        pytest.skip(run.missing)
    answers = run.answers(pixels, list(files.values()))
    wrong = {kind for name, kind in WRONG if name == run.name}
    refused = {kind for kind, path in files.items() if "error" in answers[path.name]} | wrong
    assert refused == {kind for kind, verdict in VERDICTS[run.client].items() if verdict == REFUSES}, answers
    if run.program == COMPILED and run.client == clients.CPU:
        left_out = {kind for kind, path in files.items() if not answers[path.name]["accelerated"]}
        assert left_out >= LEFT_OUT and not {("none", "float32"), ("int8", "float32")} & left_out
    for kind in wrong:
        name = files[kind].name
        # Their float weights are those of the stem, too few for float16, and of the logits.
        assert TASKS["classification"].sqnr_db(expected[name], np.array(answers[name]["scores"])) < 20
    for kind in files.keys() - refused:
        name = files[kind].name
        check_scores(np.array(answers[name]["scores"]), expected[name], kind[0], run.same_integers)


def check_scores(got: np.ndarray, wanted: np.ndarray, precision: str, same_integers: bool) -> None:
    """Compare scores with those of LiteRT as closely as the arithmetic of the precision allows."""
    assert got.shape == wanted.shape
    if precision in ("none", "float16", "weight_only"):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    elif precision == "int16x8":
        np.testing.assert_allclose(got, wanted, atol=1e-4)
    elif precision == "int8" and same_integers:  # a logit that is one step off changes its score by percents
        np.testing.assert_allclose(got, wanted, rtol=1e-3)
    else:  # rounding differs between kernels, as quantization noise
        assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.85
        assert TASKS["classification"].sqnr_db(wanted, got) > 20
