"""Saving and reloading, bit for bit, in every format under every dtype policy; the loss scale is restored."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet import EfficientNet, architecture_spec, load_weights
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.errors import UserError
from keras_effnet.export.conversion.float_graph import weight_count
from keras_effnet.export.conversion.structure import float32_copy
from keras_effnet.models.saving import load_model, load_state, policy_of

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")


def short(name: str) -> ArchitectureSpec:
    """The first two stages of a published network: squeeze-and-excite where it has it, one residual sum."""
    spec = architecture_spec(name, width=0.25, image_size=32)
    return replace(spec, stages=spec.stages[:2])


@dataclass(frozen=True)
class Case:
    network: str
    policy: str
    source: str
    preprocessing: bool

    def __str__(self) -> str:
        return f"{self.network}-{self.policy}-{self.source}-{'pixels' if self.preprocessing else 'normalised'}"


CASES = [Case("b0", *rest) for rest in product(POLICIES, ("argument", "global"), (True, False))]
CASES += [Case("lite0", policy, "argument", True) for policy in POLICIES]
# Both ways to set a policy make one network (a test says so), and tracing it is what takes the time.
EXPORTED = [case for case in CASES if case.source == "argument"]


def each(cases: list[Case], always: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """Parametrizes a test over cases; those that are not always tested belong to the slow tests."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        "case", [case if always(case) else pytest.param(case, marks=slow) for case in cases], ids=str
    )


every_case = each(CASES, lambda case: case.preprocessing and (case.source == "argument" or case.policy != "float32"))


@contextmanager
def global_policy(name: str):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build(case: Case) -> keras.Model:
    by_argument = case.source == "argument"
    with global_policy("float32" if by_argument else case.policy):
        return EfficientNet(
            short(case.network),
            input_tensor=keras.Input((32, 32, 3), name="image"),
            classes=5,
            classifier_activation=None,  # a softmax hides in its tails what differs
            include_preprocessing=case.preprocessing,
            dtype=case.policy if by_argument else None,
        )


@functools.cache
def network(case: Case) -> keras.Model:
    """A network whose every weight and statistic differs from those of a fresh one."""
    model = build(case)
    rng = np.random.default_rng(1)
    model.set_weights([weight * rng.uniform(0.8, 1.25, weight.shape) + 0.01 for weight in model.get_weights()])
    return model


def images(case: Case) -> np.ndarray:
    x = np.random.default_rng(2).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    return x if case.preprocessing else (x - 127) / 128


def outputs(model: keras.Model, case: Case) -> np.ndarray:
    y = np.asarray(model(images(case), training=False))
    assert y.dtype == np.float32 and np.isfinite(y).all()
    assert np.ptp(y, axis=0).min() > 1e-4, "images that all look alike would prove nothing"
    return y


def compute_dtypes(model: keras.Model) -> dict[str, str]:
    return {layer.name: layer.compute_dtype for layer in model.layers if layer.weights}


# ------------------------------------------------------------------ the matrix


@every_case
def test_a_keras_file_comes_back_bit_for_bit(case, tmp_path):
    model = network(case)
    model.save(tmp_path / "model.keras")
    for opened in (keras.models.load_model(tmp_path / "model.keras"), load_model(tmp_path / "model.keras")):
        np.testing.assert_array_equal(outputs(opened, case), outputs(model, case))
        assert compute_dtypes(opened) == compute_dtypes(model)
    assert opened.dtype_policy.name == model.dtype_policy.name == case.policy


@every_case
def test_a_weights_file_in_a_network_built_again_computes_bit_for_bit(case, tmp_path):
    model, again = network(case), build(case)
    model.save_weights(tmp_path / "model.weights.h5")
    assert not np.array_equal(outputs(again, case), outputs(model, case))
    load_weights(again, tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(outputs(again, case), outputs(model, case))


@every_case
def test_a_json_config_with_the_weights_set_computes_bit_for_bit(case):
    model = network(case)
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(outputs(again, case), outputs(model, case))
    assert compute_dtypes(again) == compute_dtypes(model)


@each(EXPORTED, lambda case: case.preprocessing and case.network == "b0" and case.policy != "mixed_bfloat16")
def test_a_saved_model_serves_what_predict_computes_bit_for_bit(case, tmp_path):
    # Not what an eager call computes: a graph fuses operations, which moves the last bits.
    model = network(case)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_array_equal(served.serve(images(case)), model.predict(images(case), verbose=0))


@pytest.mark.parametrize("case", EXPORTED, ids=str)
def test_the_global_policy_builds_the_network_that_the_argument_does(case):
    by_argument, by_global = build(case), build(replace(case, source="global"))
    assert by_argument.to_json() == by_global.to_json()
    assert by_argument.dtype_policy.name == by_global.dtype_policy.name == case.policy


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_a_mixed_policy_computes_otherwise_than_float32(policy):
    case = Case("b0", policy, "argument", True)
    exact = build(replace(case, policy="float32"))
    exact.set_weights(network(case).get_weights())
    assert not np.array_equal(outputs(exact, case), outputs(network(case), case))


# ------------------------------------------------------------------ resumed training


def trainable(policy: str) -> keras.Model:
    """A network without random layers, whose training is the same every time."""
    keras.utils.set_random_seed(0)
    return EfficientNet(short("b0"), classes=5, drop_connect_rate=0, dropout_rate=0, dtype=policy)


X = np.random.default_rng(3).uniform(0, 255, (8, 32, 32, 3)).astype("float32")
Y = np.arange(8) % 5


def scaling_state(optimizer) -> tuple[float, int, int]:
    return float(optimizer.dynamic_scale), int(optimizer.step_counter), int(optimizer.iterations)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A network compiled by hand under mixed_float16, two steps into its training, and its file."""
    model = trainable("mixed_float16")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)  # tracing is slow
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(64.0)  # the default overflows in the first steps, which are then skipped
    for _ in range(2):
        model.train_on_batch(X, Y)
    assert scaling_state(model.optimizer) == (64.0, 2, 2)
    path = tmp_path_factory.mktemp("interrupted") / "model.keras"
    model.save(path)
    return model, path


def test_a_training_interrupted_under_mixed_float16_goes_on_bit_for_bit(interrupted):
    model, path = interrupted
    again = load_model(path)
    assert isinstance(again.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaling_state(again.optimizer) == (64.0, 2, 2)
    for expected, got in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    before = model.get_weights()
    assert model.train_on_batch(X, Y) == again.train_on_batch(X, Y)
    assert scaling_state(again.optimizer) == (64.0, 3, 3)
    for start, expected, got in zip(before, model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert not np.array_equal(got, start)


def test_an_explicit_loss_scale_survives_plain_keras_without_this_package(tmp_path):
    model = trainable("mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW()), "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(512.0)
    model.optimizer.step_counter.assign(7)
    model.optimizer.iterations.assign(9)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    program = """
import sys
sys.modules["keras_effnet"] = None  # importing it fails
import keras
import numpy as np
model = keras.models.load_model("model.keras")
optimizer = model.optimizer
assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
assert float(optimizer.dynamic_scale) == 512 and int(optimizer.step_counter) == 7 and int(optimizer.iterations) == 9
np.save("y.npy", model(np.load("x.npy"), training=False))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.asarray(model(X, training=False)))


def test_a_float32_file_keeps_its_optimizer_under_a_mixed_global_policy(toy_model, tmp_path):
    model = toy_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(5)
    model.save(tmp_path / "model.keras")
    with global_policy("mixed_float16"):
        again = load_model(tmp_path / "model.keras")
    assert not isinstance(again.optimizer, keras.optimizers.LossScaleOptimizer)
    assert int(again.optimizer.iterations) == 5
    assert policy_of(again).name == again.dtype_policy.name == "float32"


def test_the_state_of_a_keras_file_goes_into_a_model_compiled_alike(interrupted):
    _, path = interrupted
    again = trainable("mixed_float16")
    again.compile("adam", "sparse_categorical_crossentropy")
    again.optimizer.build(again.trainable_variables)
    load_state(again, path)
    expected = load_model(path)
    for one, other in zip(again.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert scaling_state(again.optimizer) == (64.0, 2, 2)


def test_a_variable_without_dimensions_is_loaded(tmp_path):
    """`Normalization` counts in one, as in every B0 to B7 of keras.applications: such files were no Keras models."""
    image = keras.Input((4, 4, 3))
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(7, 2, (5, 4, 4, 3)))
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "model.keras")
    pixels = np.ones((2, 4, 4, 3), "float32")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(pixels), model(pixels))


def test_without_compile_there_is_nothing_but_the_network(interrupted):
    _, path = interrupted
    again = load_model(path, compile=False)
    assert not again.compiled
    assert again.dtype_policy.name == "mixed_float16"
    again.compile("sgd", "mse")
    assert isinstance(again.optimizer, keras.optimizers.LossScaleOptimizer)


# ------------------------------------------------------------------ a network inside another


@pytest.fixture(scope="module")
def nested() -> keras.Model:
    """A new head on a headless network under mixed_float16: the way of Keras' transfer learning guide."""
    base = EfficientNet(short("b0"), include_top=False, pooling="avg", input_shape=(32, 32, 3), dtype="mixed_float16")
    image = keras.Input((32, 32, 3))
    return keras.Model(image, keras.layers.Dense(3, dtype="float32")(base(image)))


def test_the_policy_of_a_network_inside_another_is_found(nested):
    assert nested.dtype_policy.name == "float32"  # what Keras says of it
    assert policy_of(nested).name == "mixed_float16"


def test_a_reloaded_network_inside_another_is_rebuilt_in_float32_for_export(nested, tmp_path):
    nested.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras", compile=False)
    assert again.dtype_policy.name == "mixed_float16"
    copy = float32_copy(again)
    assert not any(isinstance(layer, keras.Model) for layer in copy.layers)  # its layers take its place
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    np.testing.assert_allclose(np.asarray(copy(X)), np.asarray(again(X)), atol=1e-2)
    assert weight_count(copy) == sum(w.size for w in nested.get_weights() if w.ndim > 1)


# ------------------------------------------------------------------ what does not open


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match=r"Model .*gone\.keras does not exist"):
        load_model(tmp_path / "gone.keras")


def test_weights_alone_are_no_model_and_the_cure_is_named(tmp_path):
    (tmp_path / "a.weights.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.weights\.h5 is not a \.keras file; for weights, build the network"):
        load_model(tmp_path / "a.weights.h5")


@pytest.mark.parametrize("compile", [True, False])
def test_a_damaged_file_is_refused_in_one_line(interrupted, tmp_path, compile):
    content = interrupted[1].read_bytes()
    path = tmp_path / "damaged.keras"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"damaged\.keras is not a Keras model: ") as caught:
        load_model(path, compile=compile)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_python_code_in_a_file_is_not_run(tmp_path):
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image))
    model.save(tmp_path / "layer.keras")
    with pytest.raises(UserError, match=r"it holds Python code \(a Lambda layer or function 'lambda'"):
        load_model(tmp_path / "layer.keras")

    model = keras.Model(image, keras.layers.Dense(2)(image))
    model.compile("sgd", lambda y, p: keras.ops.mean(y - p))
    model.save(tmp_path / "loss.keras")
    with pytest.raises(UserError, match="opens with compile=False only: it holds Python code") as caught:
        load_model(tmp_path / "loss.keras")
    assert "safe_mode" not in str(caught.value)
    load_model(tmp_path / "loss.keras", compile=False)


def test_a_loss_that_this_process_does_not_know_leaves_the_network_to_be_opened(tmp_path):
    def own_loss(y, p):
        return keras.ops.mean(y - p)

    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2)(image))
    model.compile("sgd", own_loss)
    model.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"opens with compile=False only: Could not locate function 'own_loss'"):
        load_model(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_a_graph_too_deep_for_python_names_the_cure(tmp_path):
    x = image = keras.Input((4,))
    for _ in range(500):
        x = keras.layers.Identity()(x)
    limit = sys.getrecursionlimit()
    keras.Model(image, x).save(tmp_path / "deep.keras")
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 400)
        with pytest.raises(UserError, match=r"sys\.setrecursionlimit\(10_000\)"):
            load_model(tmp_path / "deep.keras")
    finally:
        sys.setrecursionlimit(limit)
