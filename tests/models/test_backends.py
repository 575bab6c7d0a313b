"""Networks on JAX and torch, each in a separate process: build, train one step, save, reload under TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet, architecture_spec, features, load_weights
from keras_effnet.models.saving import load_model

pytestmark = pytest.mark.slow

POLICIES = ("float32", "mixed_bfloat16")
NETWORKS = ("b0", "resnet18")
# bfloat16 keeps 8 bits, and every backend rounds its sums in an order of its own.
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 2e-2}

PROGRAM = """
import json
import sys
from dataclasses import replace

import keras
import numpy as np

import keras_effnet
from keras_effnet import architecture_spec, models, transfer, weights
from keras_effnet.models import blocks

SPECS = {name: architecture_spec(name, width=0.25, image_size=32) for name in ("b0", "resnet18")}
SPECS = {name: replace(spec, stages=spec.stages[:2]) for name, spec in SPECS.items()}
X = np.load("x.npy")
facts = {"backend": keras.backend.backend()}
built = {}
for name, spec in SPECS.items():
    for policy in ("float32", "mixed_bfloat16"):
        model = keras_effnet.EfficientNet(spec, classes=5, drop_connect_rate=0, dropout_rate=0, dtype=policy)
        keras_effnet.load_weights(model, f"{name}.weights.h5")
        begun = keras_effnet.EfficientNet(spec, classes=5, weights=f"{name}.weights.h5", dtype=policy)
        begins = all(np.array_equal(one, other) for one, other in zip(begun.get_weights(), model.get_weights()))
        if facts["backend"] == "torch":
            begins = begins and len(begun.state_dict()) >= len(begun.weights)
        given = model.predict(X, verbose=0)
        before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
        model.compile("sgd", "sparse_categorical_crossentropy")  # named: an object would be serialized
        loss = float(model.train_on_batch(X, np.arange(8) % 5))
        after = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
        still = [path for path in after if np.array_equal(after[path], before[path])]
        levels = keras_effnet.features(model, ["P2"]).predict(X, verbose=0)
        built[f"{name}-{policy}"] = model
        facts[f"{name}-{policy}"] = {"loss": loss, "still": still, "begins": begins}
        np.savez(f"{name}-{policy}", given=given, trained=model.predict(X, verbose=0), P2=levels["P2"])

model = keras_effnet.EfficientNet(SPECS["b0"], classes=5)
model.set_weights(built["b0-float32"].get_weights())
transfer.reestimate_batch_norm(model, [X, X])
facts["stem_mean"] = keras.ops.convert_to_numpy(model.get_layer("stem_bn").moving_mean).tolist()
facts["tensorflow"] = "tensorflow" in sys.modules  # Keras itself imports it to serialize anything
for key, model in built.items():
    model.save(f"{key}.keras")
    model.save_weights(f"{key}.weights.h5")
with open("facts.json", "w") as stream:
    json.dump(facts, stream)
"""


def short(name: str):
    """The first two stages of a network, 32 pixels."""
    spec = architecture_spec(name, width=0.25, image_size=32)
    return replace(spec, stages=spec.stages[:2])


def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module", params=["jax", "torch"])
def other(request, tmp_path_factory):
    """Folder of what a process on another backend computed and saved, from weights that TensorFlow's process wrote."""
    backend = request.param
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder = tmp_path_factory.mktemp(backend)
    np.save(folder / "x.npy", images())
    for name in NETWORKS:
        keras.utils.set_random_seed(1)
        model = EfficientNet(short(name), classes=5)
        model.save_weights(folder / f"{name}.weights.h5")
        np.save(folder / f"{name}.npy", model.predict(images(), verbose=0))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["backend"] == backend and keras.backend.backend() == "tensorflow"
    return folder, facts


every_network = pytest.mark.parametrize(
    ("name", "policy"), [(name, policy) for name in NETWORKS for policy in POLICIES]
)


def test_networks_build_train_and_predict_without_tensorflow(other):
    assert other[1]["tensorflow"] is False


@every_network
def test_weights_written_under_tensorflow_compute_the_same(other, name, policy):
    folder, _ = other
    given = np.load(folder / f"{name}-{policy}.npz")["given"]
    np.testing.assert_allclose(given, np.load(folder / f"{name}.npy"), atol=TOLERANCE[policy])


@every_network
def test_builders_begin_with_the_same_weights(other, name, policy):
    """On torch its modules know them as parameters, too."""
    assert other[1][f"{name}-{policy}"]["begins"] is True


@every_network
def test_a_step_moves_every_weight_and_every_statistic(other, name, policy):
    facts = other[1][f"{name}-{policy}"]
    assert np.isfinite(facts["loss"]) and facts["loss"] > 0
    assert facts["still"] == []


@every_network
def test_a_keras_file_opens_under_tensorflow_with_the_same_outputs(other, name, policy):
    folder, _ = other
    model = load_model(folder / f"{name}-{policy}.keras")
    assert model.dtype_policy.name == policy and int(model.optimizer.iterations) == 1
    trained = np.load(folder / f"{name}-{policy}.npz")["trained"]
    np.testing.assert_allclose(model.predict(images(), verbose=0), trained, atol=TOLERANCE[policy])


@every_network
def test_a_weights_file_loads_under_tensorflow_with_the_same_outputs(other, name, policy):
    folder, _ = other
    model = EfficientNet(short(name), classes=5, dtype=policy)
    load_weights(model, folder / f"{name}-{policy}.weights.h5")
    trained = np.load(folder / f"{name}-{policy}.npz")["trained"]
    np.testing.assert_allclose(model.predict(images(), verbose=0), trained, atol=TOLERANCE[policy])


def test_feature_maps_are_those_of_tensorflow(other):
    folder, _ = other
    levels = features(load_model(folder / "b0-float32.keras", compile=False), ["P2"]).predict(images(), verbose=0)
    expected = np.load(folder / "b0-float32.npz")["P2"]
    assert expected.shape == (8, 8, 8, 8)
    np.testing.assert_allclose(levels["P2"], expected, atol=1e-4)


def test_statistics_are_measured_anew(other):
    folder, facts = other
    model = load_model(folder / "b0-float32.keras", compile=False)
    stem = keras.Model(model.inputs, model.get_layer("stem_conv").output)
    expected = stem.predict(images(), verbose=0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(facts["stem_mean"], expected, atol=1e-4)
