"""Canaries: each private name of a framework exists and works as we use it, and its fallback works without it."""

import subprocess
import sys
from importlib.metadata import version

import keras
import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.models import initial_values
from keras_effnet.system import private_api


def gone(name: str, purpose: str, seen: str, breaks: str) -> str:
    """What a canary says when it fails."""
    package = {"keras": "keras", "PIL": "pillow"}.get(name.split(".")[0], "tensorflow")
    return (
        f"{name} is gone or has changed in {package} {version(package)}; it was seen to work with {seen}. "
        f"It is for {purpose}. Without it {breaks}. Adapt keras_effnet/system/private_api.py."
    )


def test_the_module_imports_no_framework():
    program = "import sys; import keras_effnet.system.private_api; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"keras", "tensorflow", "torch", "jax", "numpy"} & set(done.stdout.split())


# ------------------------------------------------------------------ keras.Variable._initializer


def small_network():
    image = keras.Input((4,))
    return keras.Model(image, keras.layers.Dense(2, name="dense")(image))


def built_with_twos(monkeypatch=None):
    def values(model):
        return [(variable, np.full(variable.shape, 2.0)) for variable in model.get_layer("dense").weights[:1]]

    return initial_values.build_with(small_network, values)


def test_canary_deferred_variables_keep_their_initializer():
    message = gone(
        "keras.Variable._initializer",
        "building networks without random values that a weights file then replaces",
        "Keras 3.12 to 3.15",
        "networks are built about twice as slowly, with the same weights",
    )
    drawn = []
    with keras.StatelessScope():
        model = small_network()
        kernel = model.get_layer("dense").kernel
        replaced = private_api.set_deferred_initializer(
            kernel, lambda shape, dtype=None: drawn.append(1) or keras.ops.full(shape, 2.0, dtype)
        )
    assert replaced and drawn, message
    np.testing.assert_array_equal(kernel, np.full((4, 2), 2.0), err_msg=message)


@pytest.mark.parametrize("name", ["_initializer", "_absent"])
def test_networks_start_with_given_values_with_and_without_the_private_name(monkeypatch, name):
    monkeypatch.setattr(private_api, "_INITIALIZER", name)
    kernel, bias = built_with_twos().get_layer("dense").get_weights()
    np.testing.assert_array_equal(kernel, np.full((4, 2), 2.0))
    np.testing.assert_array_equal(bias, np.zeros(2))


def test_a_variable_with_a_value_is_left_to_the_caller():
    assert not private_api.set_deferred_initializer(keras.Variable(np.ones(2)), keras.initializers.Zeros())


# ------------------------------------------------------------------ Layer.torch_params

TORCH = """
import keras
from keras_effnet.models.initial_values import build_with
from keras_effnet.system import private_api
private_api._TORCH_PARAMS = {name!r}
def network():
    image = keras.Input((4,))
    return keras.Model(image, keras.layers.Dense(2)(image))
model = build_with(network, lambda model: ())
before = len(list(model.parameters()))
model(keras.ops.zeros((1, 4)))
print(before, len(list(model.parameters())))
"""


def parameters(name):
    pytest.importorskip("torch")
    import os

    done = subprocess.run(
        [sys.executable, "-c", TORCH.format(name=name)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"KERAS_BACKEND": "torch"},
    )
    return [int(number) for number in done.stdout.split()[-2:]]


@pytest.mark.slow
def test_canary_torch_parameters_exist_before_the_first_call():
    message = gone(
        "keras.layers.Layer.torch_params",
        "creating torch parameters right after a deferred build",
        "Keras 3.12 to 3.15",
        "`model.parameters()` is empty on the torch backend until the model is called",
    )
    assert parameters("torch_params")[0] == 2, message


@pytest.mark.slow
def test_without_torch_params_the_first_call_creates_the_parameters():
    assert parameters("_absent")[1] == 2


# ------------------------------------------------------------------ TensorFlow Lite's quantizers


@pytest.fixture(scope="module")
def calibrated():
    """A small float `.tflite` file whose tensors have ranges, and images that it was calibrated on."""
    from keras_effnet.export.conversion.float_graph import FloatGraph

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    images = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype("float32")
    return FloatGraph(keras.Model(image, x), images).minmax


def dtypes(content):
    from keras_effnet.export.tflite_file.schema import parse

    return {tensor.type for tensor in parse(content).subgraphs[0].tensors}


INT8 = {"input_type": "float32", "float_operators": ["SOFTMAX"], "float_tensors": []}


def test_canary_int8_quantizer(calibrated):
    message = gone(
        "tensorflow.lite.python.convert.mlir_quantize",
        "int8 files from a float file whose ranges were edited (percentiles, equalization)",
        "TensorFlow 2.20 and 2.21",
        "int8 and mixed export raise a UserError",
    )
    from ai_edge_litert.schema_py_generated import TensorType

    try:
        content = private_api.quantize_int8(calibrated, **INT8)
    except UserError as error:
        pytest.fail(f"{message} ({error})")
    assert TensorType.INT8 in dtypes(content), message


def test_canary_int16x8_quantizer(calibrated):
    message = gone(
        "tensorflow.lite.python.optimize.calibrator.Calibrator._calibrator",
        "int16x8 files from a float file whose ranges were edited",
        "TensorFlow 2.20 and 2.21",
        "int16x8 export raises a UserError",
    )
    from ai_edge_litert.schema_py_generated import TensorType

    try:
        content = private_api.quantize_int16x8(calibrated)
    except UserError as error:
        pytest.fail(f"{message} ({error})")
    assert {TensorType.INT8, TensorType.INT16, TensorType.INT64} <= dtypes(content), message


def refuse(*args, **kwargs):
    raise TypeError("unexpected keyword argument")


def test_without_the_int8_quantizer_the_error_names_what_to_install(calibrated, monkeypatch):
    from tensorflow.lite.python import convert

    wanted = rf"int8 export needs .*mlir_quantize, which TensorFlow {version('tensorflow')} .*tensorflow>=2"
    with monkeypatch.context() as patch:
        patch.delattr(convert, "mlir_quantize")
        with pytest.raises(UserError, match=wanted):
            private_api.quantize_int8(calibrated, **INT8)
    monkeypatch.setattr(convert, "mlir_quantize", refuse)
    with pytest.raises(UserError, match=wanted):
        private_api.quantize_int8(calibrated, **INT8)


def test_without_the_int16x8_quantizer_the_error_names_what_to_install(calibrated, monkeypatch):
    from tensorflow.lite.python.optimize import calibrator

    wanted = rf"int16x8 export needs .*_calibrator, which TensorFlow {version('tensorflow')} .*tensorflow>=2"
    with monkeypatch.context() as patch:
        patch.delattr(calibrator, "Calibrator")
        with pytest.raises(UserError, match=wanted):
            private_api.quantize_int16x8(calibrated)
    monkeypatch.setattr(calibrator, "Calibrator", lambda content: object())
    with pytest.raises(UserError, match=wanted):
        private_api.quantize_int16x8(calibrated)


# ------------------------------------------------------------------ uninitialized_variables


def fail_to_build():
    with pytest.raises(ZeroDivisionError), keras.StatelessScope(), private_api.discarding_deferred_variables():
        kernel = small_network().get_layer("dense").kernel
        raise ZeroDivisionError
    return kernel


def test_canary_variables_of_a_failed_network_are_never_allocated():
    message = gone(
        "keras.src.backend.common.global_state: uninitialized_variables",
        "refusing a file that claims gigabytes of weights before they are allocated",
        "Keras 3.15",
        "such a file exhausts the memory",
    )
    assert getattr(fail_to_build(), "_value", 0) is None, message


def test_a_network_that_runs_out_of_memory_does_not_fail_the_next_one():
    def full(shape, dtype=None):
        raise MemoryError

    def network():
        image = keras.Input((4,))
        return keras.Model(image, keras.layers.Dense(2, kernel_initializer=full)(keras.layers.Dense(3)(image)))

    with pytest.raises(MemoryError):
        initial_values.build_with(network, lambda model: ())
    assert built_with_twos().get_layer("dense").kernel.numpy().tolist() == [[2.0, 2.0]] * 4


def test_without_the_list_of_variables_a_failed_network_is_initialized(monkeypatch):
    from keras.src.backend.common import global_state

    monkeypatch.delattr(global_state, "get_global_attribute")
    with pytest.raises(ZeroDivisionError), private_api.discarding_deferred_variables():
        raise ZeroDivisionError


# ------------------------------------------------------------------ libtiff of Pillow


def test_canary_libtiff_is_found_through_pillow():
    private_api.silence_libtiff.cache_clear()
    message = gone("PIL.Image.core", "silencing libtiff", "Pillow 13", "it prints about damaged TIFF files")
    assert private_api.silence_libtiff(), message


def test_without_the_library_libtiff_stays_as_it_is(monkeypatch):
    from PIL import Image

    private_api.silence_libtiff.cache_clear()
    monkeypatch.setattr(Image, "core", object())
    assert not private_api.silence_libtiff()
    private_api.silence_libtiff.cache_clear()
