"""Distribution strategies: refusals, two virtual devices against one, two processes against one."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.errors import UserError
from keras_effnet.training import distribution
from keras_effnet.training.processes import ADDRESSES, PROCESS_ID, PROCESSES

GROUP = {ADDRESSES: "127.0.0.1:1", PROCESSES: "2", PROCESS_ID: "1"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("TF_CONFIG", *GROUP):
        monkeypatch.delenv(name, raising=False)


def set_group(monkeypatch, **changes):
    for name, value in (GROUP | changes).items():
        monkeypatch.setenv(name, value)


# --- refused before anything is built


@pytest.mark.parametrize("name", ["none", "mirrored", "tpu"])
def test_strategies_of_this_backend_pass(name):
    assert distribution.check_strategy(name) == name


def test_a_typo_gets_the_closest_strategy():
    with pytest.raises(UserError, match="Did you mean 'mirrored'"):
        distribution.check_strategy("miror")


@pytest.mark.parametrize("name", ["mirrored", "tpu"])
def test_tensorflows_strategies_refuse_gradient_accumulation(name):
    assert distribution.check_strategy(name, gradient_accumulation=1) == name
    with pytest.raises(UserError, match=f"{name} cannot accumulate gradients over 4 batches"):
        distribution.check_strategy(name, gradient_accumulation=4)


def test_one_device_accumulates_gradients():
    assert distribution.check_strategy("none", gradient_accumulation=4) == "none"


@pytest.mark.parametrize("name", ["multiworker", "multi_worker", "MultiWorkerMirrored"])
def test_multiworker_is_refused_with_the_way_that_works(name):
    with pytest.raises(UserError, match=r"does not work with model.fit.*--strategy data-parallel.*launch"):
        distribution.check_strategy(name)


def test_data_parallel_asks_for_jax():
    with pytest.raises(UserError, match="set KERAS_BACKEND=jax before"):
        distribution.check_strategy("data-parallel")


@pytest.mark.parametrize("name", ["mirrored", "tpu"])
def test_tensorflows_strategies_ask_for_tensorflow(name, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="set KERAS_BACKEND=tensorflow before"):
        distribution.check_strategy(name)


@pytest.mark.parametrize("name", ["none", "mirrored"])
def test_a_tf_config_of_several_tasks_is_refused(name, monkeypatch):
    cluster = {"worker": ["10.0.0.1:1", "10.0.0.2:1"], "chief": ["10.0.0.3:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    with pytest.raises(UserError, match=r"TF_CONFIG names 3 tasks; each would train alone.*data-parallel"):
        distribution.check_strategy(name)


@pytest.mark.parametrize("value", ["", "{}", '{"cluster": {"worker": ["10.0.0.1:1"]}}'])
def test_a_tf_config_of_one_task_is_none_of_our_business(value, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", value)
    assert distribution.check_strategy("none") == "none"


@pytest.mark.parametrize("value", ["worker", "[1]", '{"cluster": 3}'])
def test_a_broken_tf_config_is_named(value, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(UserError, match="TF_CONFIG is set but"):
        distribution.check_strategy("none")


def test_a_process_of_several_never_trains_alone(monkeypatch):
    set_group(monkeypatch)
    with pytest.raises(UserError, match=r"each process would train alone. Use --strategy data-parallel"):
        distribution.check_strategy("none")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (PROCESS_ID, "", "NUM_PROCESSES|JOB_ADDRESSES is set but .*PROCESS_ID is not"),
        (PROCESS_ID, "2", "must be below .*, 2; got 2"),
        (PROCESS_ID, "one", "must be an integer of 0 or more, got 'one'"),
        (PROCESSES, "-2", "must be an integer of 0 or more, got '-2'"),
    ],
)
def test_a_wrong_group_is_named(variable, value, message, monkeypatch):
    set_group(monkeypatch, **{variable: value})
    with pytest.raises(UserError, match=message):
        distribution.is_chief()


def test_the_chief_is_the_first_process_or_the_only_one(monkeypatch):
    assert distribution.is_chief()
    set_group(monkeypatch)
    assert not distribution.is_chief()
    monkeypatch.setenv(PROCESS_ID, "0")
    assert distribution.is_chief()


# --- on one device


def test_none_is_no_scope():
    with distribution.scope("none") as strategy:
        assert strategy is None and not tf.distribute.has_strategy()
    assert distribution.replicas("none") == 1


def test_tpu_says_that_there_is_none():
    if tf.config.list_physical_devices("TPU"):
        pytest.skip("this machine has a TPU")
    with pytest.raises(UserError, match="found no TPU on this machine"), distribution.scope("tpu"):
        pass


@pytest.mark.parametrize(("size", "nearest"), [(33, 32), (35, 36), (1, 4)])
def test_a_batch_that_cannot_be_shared_is_refused(size, nearest, monkeypatch):
    monkeypatch.setattr(distribution, "_mirrored_devices", lambda: ["CPU:0"] * 4)
    assert distribution.check_batch_size(32, "mirrored") == 8
    with pytest.raises(UserError, match=f"A batch of {size} cannot be divided among 4 devices; use {nearest}"):
        distribution.check_batch_size(size, "mirrored")


@pytest.mark.parametrize("name", ["none", "mirrored"])
def test_tensorflow_cuts_up_batches_itself(name):
    data = tf.data.Dataset.range(4).batch(2)
    assert distribution.local_part(data, name) is data


def test_batch_norm_is_synchronized_for_a_while():
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.layers.BatchNormalization(name="bn")(image))
    with pytest.raises(RuntimeError), distribution.synchronized_batch_norm(model):
        assert model.get_layer("bn").synchronized
        raise RuntimeError
    assert not model.get_layer("bn").synchronized


# --- the launcher


SAY = """
import os, sys
names = ("KERAS_BACKEND", "KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID")
print(*(os.environ[name] for name in names), *sys.argv[1:])
print("address", os.environ["KERAS_DISTRIBUTION_JOB_ADDRESSES"], file=sys.stderr)
"""
FAIL = """
import os, signal, sys, time
if os.environ["KERAS_DISTRIBUTION_PROCESS_ID"] == "1":
    {end}
time.sleep(300)
"""


@pytest.fixture
def script(tmp_path):
    def write(text: str):
        path = tmp_path / "program.py"
        path.write_text(text)
        return path

    return write


def test_launch_gives_each_process_its_number_and_one_address(cli, script):
    done = cli("launch", "--processes", 3, "--", script(SAY), "--flag")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert {line for line in lines if "jax" in line} == {f"[{number}] jax 3 {number} --flag" for number in range(3)}
    addresses = {line.split("address ")[1] for line in lines if "address" in line}
    assert len(addresses) == 1 and addresses.pop().startswith("127.0.0.1:")


def test_launch_starts_the_process_of_this_host_alone(cli, script):
    done = cli("launch", "--processes", 4, "--coordinator", "10.0.0.1:99", "--process-id", 2, "--", script(SAY))
    assert sorted(done.out.splitlines()) == ["[2] address 10.0.0.1:99", "[2] jax 4 2"]


def test_launch_runs_commands_of_this_package(cli):
    done = cli("launch", "--processes", 1, "--", "--version")
    assert done.status == 0 and done.out.startswith("[0] keras-effnet")


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL)]
)
def test_launch_ends_all_when_one_fails(cli, script, end, status):
    started = time.monotonic()
    done = cli("launch", "--", script(FAIL.format(end=end)))
    assert done.status == status
    assert f"Process 1 exited with status {status}" in done.err
    assert time.monotonic() - started < 60  # the other one would sleep for 300 seconds


def test_launch_that_is_told_to_end_leaves_no_process_behind(script):
    program = script("import os, time\nprint('pid', os.getpid())\ntime.sleep(300)")
    launcher = subprocess.Popen(
        [sys.executable, "-m", "keras_effnet", "launch", "--", program], stdout=subprocess.PIPE, text=True
    )
    numbers = [int(launcher.stdout.readline().split("pid ")[1]) for _ in range(2)]
    launcher.terminate()
    assert launcher.wait(60) == 128 + signal.SIGTERM
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--process-id", 2, "--coordinator", "a:1"], "at most 1"),
        (["--process-id", 1], "need both --coordinator"),
        (["--coordinator", "a:1"], "need both --coordinator"),
        (["--process-id", 1, "--coordinator", "10.0.0.1"], "must be HOST:PORT, got '10.0.0.1'"),
    ],
)
def test_launch_refuses_half_of_a_group(cli, options, message):
    done = cli("launch", *options, "--", "info")
    assert done.status == 2 and message in done.err


# --- programs in processes of their own


def start(program: str, folder, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes: subprocess.Popen) -> None:
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()


MIRRORED = """
import json
from contextlib import nullcontext
from dataclasses import replace

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import numpy as np

from keras_effnet import EfficientNet, architecture_spec, datasets
from keras_effnet.training import distribution
from keras_effnet.pipeline import image_pipeline
from keras_effnet.preprocessing import ImageSpec

spec = architecture_spec("b0", width=0.25, image_size=32)
spec = replace(spec, stages=spec.stages[:2])
facts = {"replicas": distribution.replicas("mirrored")}


def build(dtype=None):
    keras.utils.set_random_seed(0)
    return EfficientNet(spec, classes=10, dtype=dtype, dropout_rate=0, drop_connect_rate=0)


def copies(variable):
    return [np.asarray(value) for value in variable.value.values]


rng = np.random.default_rng(0)
# The halves differ, so that statistics of a half are not those of the batch.
x = rng.uniform(0, 255, (16, 32, 32, 3)).astype("float32") * np.repeat([0.3, 1.0], 8)[:, None, None, None]
batch = tf.data.Dataset.from_tensor_slices((x.astype("float32"), np.arange(16) % 10)).batch(16)
weights = {}
for key, name, synchronized in (("one", "none", 0), ("shared", "mirrored", 1), ("apart", "mirrored", 0)):
    with distribution.scope(name):
        model = build()
        with distribution.synchronized_batch_norm(model) if synchronized else nullcontext():
            model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
            model.fit(batch, verbose=0, shuffle=False)
    weights |= {f"{key}/{variable.path}": np.asarray(variable) for variable in model.weights}
np.savez("weights.npz", **weights)

with distribution.scope("mirrored"):
    model = build("mixed_float16")
    digits = image_pipeline(datasets.load("digits"), ImageSpec.of(spec), 64, training=True).take(10)
    with distribution.synchronized_batch_norm(model):
        optimizer = keras.optimizers.Adam(3e-3, use_ema=True, ema_momentum=0.9)
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer), "sparse_categorical_crossentropy")
        facts["loss"] = model.fit(digits, epochs=3, verbose=0, shuffle=False).history["loss"]
        facts["steps"] = int(keras.ops.convert_to_numpy(optimizer.iterations))
    averages = [variable for variable in optimizer.variables if variable.name.endswith("_average")]
    trained = [*model.trainable_variables, *averages]
    facts["spread"] = max(float(np.abs(one - other).max()) for one, other in map(copies, trained))
    facts["averaged"] = len(averages)
    facts["trainable"] = len(model.trainable_variables)
    model.save("shared.keras")
with open("facts.json", "w") as stream:
    json.dump(facts, stream)
"""


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """What a process with two virtual devices computed: one step three ways, and a training with everything on."""
    folder = tmp_path_factory.mktemp("mirrored")
    finish(start(MIRRORED, folder))
    return folder, json.loads((folder / "facts.json").read_text())


def largest_difference(folder, one: str, other: str) -> float:
    weights = np.load(folder / "weights.npz")
    paths = [key.removeprefix(f"{one}/") for key in weights if key.startswith(f"{one}/")]
    assert len(paths) > 40
    return max(float(np.abs(weights[f"{one}/{path}"] - weights[f"{other}/{path}"]).max()) for path in paths)


@pytest.mark.slow
def test_a_step_on_two_devices_is_that_of_one(mirrored):
    """Gradients are averaged, not summed, and statistics are those of the whole batch."""
    folder, facts = mirrored
    assert facts["replicas"] == 2
    assert largest_difference(folder, "one", "shared") < 1e-5


@pytest.mark.slow
def test_without_synchronization_statistics_are_those_of_a_part(mirrored):
    assert largest_difference(mirrored[0], "one", "apart") > 1e-3


@pytest.mark.slow
def test_mirrored_learns_with_averaged_weights_mixed_precision_and_synchronized_statistics(mirrored):
    _, facts = mirrored
    assert np.isfinite(facts["loss"]).all()
    assert facts["loss"][-1] < facts["loss"][0] - 0.3
    assert facts["steps"] > 25, "loss scaling skipped most steps"
    assert facts["averaged"] == facts["trainable"] > 20
    assert facts["spread"] == 0


@pytest.mark.slow
def test_a_network_trained_on_two_devices_is_a_stock_keras_file(mirrored):
    model = keras.models.load_model(mirrored[0] / "shared.keras", compile=False)
    assert not any(getattr(layer, "synchronized", False) for layer in model.layers)
    assert np.isfinite(model.predict(np.zeros((3, 32, 32, 3)), verbose=0)).all()


DATA_PARALLEL = """
import json
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.training import distribution

NAME = distribution.check_strategy("data-parallel", gradient_accumulation=2)
out, facts = sys.argv[1], {}
with distribution.scope(NAME) as layout:
    assert keras.distribution.distribution() is layout
    facts |= {"replicas": distribution.replicas(NAME), "chief": distribution.is_chief()}
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3)(image))
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(hidden))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(hidden))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 64)
    train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(64, seed=1).batch(16)
    val = tf.data.Dataset.from_tensor_slices((x[:33], y[:33])).batch(16)  # the last batch is a single image
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "sparse_categorical_crossentropy")
    train, val = distribution.local_part(train, NAME), distribution.local_part(val, NAME)
    facts["local"] = [int(batch[0].shape[0]) for batch in val]
    facts["history"] = model.fit(train, validation_data=val, epochs=2, verbose=0, shuffle=False).history
    np.savez(f"{out}.npz", *model.get_weights())
    if distribution.is_chief():
        with distribution.alone():
            model.save(f"{out}.keras")
    assert keras.distribution.distribution() is layout
assert keras.distribution.distribution() is None
with open(f"{out}.json", "w") as stream:
    json.dump(facts, stream)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def parallel(tmp_path_factory):
    """Facts and weights of one process alone and of two that share every batch."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    folder = tmp_path_factory.mktemp("parallel")
    address = f"127.0.0.1:{free_port()}"
    runs = {"alone": {}} | {
        name: {ADDRESSES: address, PROCESSES: "2", PROCESS_ID: str(number)}
        for number, name in enumerate(("first", "second"))
    }
    shared = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    processes = [start(DATA_PARALLEL, folder, name, **shared, **variables) for name, variables in runs.items()]
    finish(*processes)
    facts = {name: json.loads((folder / f"{name}.json").read_text()) for name in runs}
    weights = {name: list(np.load(folder / f"{name}.npz").values()) for name in runs}
    return folder, facts, weights


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(parallel):
    _, facts, weights = parallel
    assert [facts[name]["replicas"] for name in ("alone", "first", "second")] == [1, 2, 2]
    for one, other in zip(weights["first"], weights["second"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_two_processes_compute_what_one_does_with_the_same_batches(parallel):
    """Batch normalization included: a shared batch is one batch."""
    _, facts, weights = parallel
    for one, other in zip(weights["alone"], weights["first"], strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    np.testing.assert_allclose(facts["first"]["history"]["loss"], facts["alone"]["history"]["loss"], atol=1e-5)


@pytest.mark.slow
def test_processes_have_equal_parts_of_a_last_batch_too_small_to_share(parallel):
    _, facts, _ = parallel
    assert facts["alone"]["local"] == [16, 16, 1]
    assert facts["first"]["local"] == facts["second"]["local"] == [8, 8, 1]
    # The last image counts twice among 34, which is all that differs.
    assert facts["first"]["history"]["val_loss"] == facts["second"]["history"]["val_loss"]
    np.testing.assert_allclose(facts["first"]["history"]["val_loss"], facts["alone"]["history"]["val_loss"], atol=0.05)


@pytest.mark.slow
def test_only_the_first_process_writes_the_model(parallel):
    folder, facts, _ = parallel
    assert [facts[name]["chief"] for name in ("alone", "first", "second")] == [True, True, False]
    model = keras.models.load_model(folder / "first.keras", compile=False)
    assert model.predict(np.zeros((2, 8, 8, 3)), verbose=0).shape == (2, 3)
    assert not (folder / "second.keras").exists()
