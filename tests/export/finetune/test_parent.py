"""The tf_keras copy for fine-tuning: the same function, the same rounding as the file, in a separate process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_effnet import EfficientNet, architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import span_input_range
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.folding import fold_batch_norms
from keras_effnet.export.finetune import parent
from keras_effnet.export.finetune.parent import FineTuning, describe, fine_tune
from keras_effnet.export.finetune.qat import QatResult, starting_ranges
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.verification import compare

NETWORKS = ("b0", "lite0", "resnet18")

# Logits of every job's twin, as built and as tfmot quantizes it.
SCRIPT = """
import json, sys
import numpy as np
from pathlib import Path
from keras_effnet.export.finetune.worker import build, quantize
for folder in map(Path, sys.argv[1:]):
    job = json.loads((folder / "job.json").read_text())
    model, weights = build(job["network"], job["input_shape"]), np.load(folder / "weights.npz")
    for layer in model.layers:
        layer.set_weights([weights[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
    images = np.load(folder / "images.npy")
    np.save(folder / "float.npy", model(images))
    if job["ranges"]:
        np.save(folder / "int8.npy", quantize(model, job, 1).model(images))
"""


@pytest.fixture(scope="module")
def images(smooth_images) -> np.ndarray:
    return span_input_range(smooth_images(60, 32).astype("float32"))


def network(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    spec = architecture_spec(name, depth=0.2, width=0.25, image_size=32)
    # Without the rescaling, which the file splits into two roundings that the twin does not know.
    model = EfficientNet(
        spec,
        weights=None,
        classes=5,
        classifier_activation=None,
        input_shape=(32, 32, 3),
        include_preprocessing=False,
    )
    stem = model.get_layer("stem_conv")
    stem.set_weights([kernel / 128 for kernel in stem.get_weights()])
    return model


@pytest.fixture(scope="module")
def twins(images, tmp_path_factory) -> dict[str, tuple[keras.Model, dict, Path]]:
    """Name -> network, ranges and the folder with its twin's logits. One process for all: it takes long to start."""
    jobs = {}
    for name in NETWORKS:
        model = network(name)
        ranges = {}
        if name in ("b0", "lite0"):
            model = fold_batch_norms(model)
            ranges = starting_ranges(FloatGraph(model, images))
        folder = tmp_path_factory.mktemp(name)
        job = {"network": describe(model), "input_shape": model.input_shape[1:], "ranges": ranges}
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "weights.npz", **parent.weights(model))
        np.save(folder / "images.npy", images)
        jobs[name] = model, ranges, folder
    folders = [str(folder) for _, _, folder in jobs.values()]
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, *folders], env=environment, check=True)
    return jobs


@pytest.mark.parametrize("name", NETWORKS)
def test_the_twin_gives_the_logits_of_its_model(twins, images, name):
    model, _, folder = twins[name]
    expected = keras.ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(np.load(folder / "float.npy"), expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_what_is_trained_is_what_the_file_computes(twins, images):
    model, ranges, folder = twins["lite0"]
    file = TFLiteModel(QatResult(model, ranges, images).tflite()).predict(images)
    simulated = compare(np.load(folder / "int8.npy"), file).sqnr_db
    lost = compare(keras.ops.convert_to_numpy(model(images)), file).sqnr_db
    assert simulated >= lost + 6, f"{simulated:.1f} dB beside {lost:.1f} dB without rounding"


def test_with_swish_the_noise_is_as_strong_as_in_the_file(twins, images):
    # Its sigmoid is rounded inside an operator of the file, which sets all later roundings off on ways of their own.
    model, ranges, folder = twins["b0"]
    answers = keras.ops.convert_to_numpy(model(images))
    file = TFLiteModel(QatResult(model, ranges, images).tflite()).predict(images)
    simulated = compare(answers, np.load(folder / "int8.npy")).sqnr_db
    assert simulated == pytest.approx(compare(answers, file).sqnr_db, abs=3)


@pytest.mark.parametrize("name", ["b0", "lite0"])
def test_with_and_without_swish_the_file_is_int8_throughout(twins, images, name):
    model, ranges, _ = twins[name]
    graph = parse(QatResult(model, ranges, images).tflite("uint8")).subgraphs[0]
    floats = [index for index, tensor in enumerate(graph.tensors) if tensor.type == schema.TensorType.FLOAT32]
    assert floats == list(graph.outputs)


def test_the_callers_process_never_sees_tfmot(twins):
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert not {"tf_keras", "tensorflow_model_optimization"} & set(sys.modules)


def test_a_layer_that_tf_keras_lacks_is_named():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.GaussianNoise(0.1, name="grain")(image))
    with pytest.raises(UserError, match="Layer grain is a GaussianNoise, which cannot be rebuilt in tf_keras"):
        describe(model)


def test_a_function_of_keras_ops_is_named_too():
    image = keras.Input((8, 8, 3))
    with pytest.raises(UserError, match=r"Layer multiply.* is a Multiply, which cannot be rebuilt in tf_keras"):
        describe(keras.Model(image, keras.ops.multiply(image, 2.0)))


def test_a_layer_that_is_called_twice_is_refused():
    image, again = keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="again")
    with pytest.raises(UserError, match=r"Layer again is called 2 times, .*: put copies in its place"):
        describe(keras.Model(image, again(again(image))))


@pytest.fixture
def toy(toy_model) -> keras.Model:
    return toy_model()


def test_a_failed_training_says_why_in_one_line_and_keeps_its_log(toy, smooth_images, monkeypatch):
    monkeypatch.setattr(parent, "_TRAINER", "keras_effnet.no_such_trainer")
    with pytest.raises(UserError) as caught:
        fine_tune(toy, smooth_images(4, 8), "quantize", {"ranges": {}}, FineTuning())
    message = str(caught.value)
    assert "No module named keras_effnet.no_such_trainer" in message and "\n" not in message
    log = Path(re.search(r"See its log, (\S+)\.$", message)[1])
    assert "No module named" in log.read_text()
    log.unlink()


def test_a_training_that_was_killed_is_said_to_be(toy, smooth_images, monkeypatch, tmp_path):
    (tmp_path / "dying.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(parent, "_TRAINER", "dying")
    with pytest.raises(UserError, match="killed by signal 9, probably out of memory") as caught:
        fine_tune(toy, smooth_images(4, 8), "quantize", {"ranges": {}}, FineTuning())
    Path(re.search(r"See its log, (\S+)\.$", str(caught.value))[1]).unlink()


def test_an_interrupted_caller_leaves_no_training_behind(toy, smooth_images, monkeypatch, tmp_path):
    (tmp_path / "endless.py").write_text(
        "import os, pathlib, sys, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "print('epoch 1/2', flush=True)\ntime.sleep(600)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(parent, "_TRAINER", "endless")

    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(toy, smooth_images(4, 8), "quantize", {"ranges": {}}, FineTuning(), interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs and batch_size must be at least 1, got 0 and 16"),
        ({"batch_size": 0}, "epochs and batch_size must be at least 1, got 4 and 0"),
        ({"learning_rate": 0.0}, r"learning rate must lie in \(0, 1\], got 0\.0"),
    ],
)
def test_a_tuning_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        FineTuning(**arguments)
