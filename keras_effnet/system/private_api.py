"""Private names of Keras, TensorFlow and Pillow, each with its fallback.

Nothing outside this module may use a private name of a framework. For each one, the docstring says what it is for and
what happens in a release without it: a slower public way, or a `UserError` that names the releases to install. The
canary tests in `tests/system/test_private_api.py` fail on the first release that lacks a name. Importing this module
imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from keras_effnet.errors import UserError

if TYPE_CHECKING:
    import keras

TENSORFLOW_RELEASES = "tensorflow>=2.20,<2.22"

_INITIALIZER = "_initializer"  # of `keras.Variable`
_HISTORY, _NODES = "_keras_history", "_inbound_nodes"  # of a symbolic tensor, and of an operation
_TORCH_PARAMS = "torch_params"  # of a Keras layer on the torch backend
_UNINITIALIZED = "uninitialized_variables"  # of Keras' global state
_DECAY, _DECAYS, _INDEX = "_apply_weight_decay", "_use_weight_decay", "_get_variable_index"  # of a Keras optimizer


def set_deferred_initializer(variable: keras.Variable, initializer: Callable[..., Any]) -> bool:
    """Set the initializer of a Keras variable whose initialization is deferred by `keras.StatelessScope`.

    Private name: `keras.Variable._initializer`, so that a network is built without random values that a file then
    replaces (over half of the build time of B7). Fallback: False is returned, Keras draws the random value, and the
    caller assigns its own.

    Args:
        variable: Keras variable.
        initializer: Function `(shape, dtype=None)` that returns the initial value.

    Returns:
        Bool, whether the variable will start with this value; False if it has a value already.
    """
    if getattr(variable, _INITIALIZER, None) is None:
        return False
    setattr(variable, _INITIALIZER, initializer)
    return True


def graph_steps(model: keras.Model) -> list[tuple[Any, tuple[Any, ...], Any]]:
    """Layers and operations of a functional model in the order of computation, with their tensors in this model.

    Private names: `KerasTensor._keras_history` and `Operation._inbound_nodes`, because `Layer.input` and `Layer.output`
    are those of a layer's first call, which a layer shared by several models has in another model. Fallback: the
    tensors of the first call.

    Args:
        model: Functional model.

    Returns:
        A list of `(operation, inputs, output)`, without input layers; `inputs` is a tuple of symbolic tensors.
    """
    if not all(hasattr(tensor, _HISTORY) for tensor in model.outputs):
        first_calls = [(layer, layer.input, layer.output) for layer in model.layers]
        pairs = [(layer, given if isinstance(given, list) else [given], output) for layer, given, output in first_calls]
        return [(layer, tuple(given), output) for layer, given, output in pairs if output is not given[0]]
    sources = {id(tensor) for tensor in model.inputs}
    steps: list[tuple[Any, tuple[Any, ...], Any]] = []
    done: set[int] = set(sources)
    waiting = [(tensor, False) for tensor in reversed(model.outputs)]
    while waiting:
        tensor, inputs_done = waiting.pop()
        if id(tensor) in done:
            continue
        history = getattr(tensor, _HISTORY)
        inputs = tuple(getattr(history.operation, _NODES)[history.node_index].input_tensors)
        if inputs_done:
            done.add(id(tensor))
            if inputs:
                steps.append((history.operation, inputs, tensor))
        else:
            waiting.append((tensor, True))
            waiting.extend((each, False) for each in reversed(inputs))
    return steps


@contextmanager
def discarding_deferred_variables() -> Iterator[None]:
    """Drop the deferred variables of a network whose construction fails, so that they are never allocated.

    Private name: the list `uninitialized_variables` of Keras' global state, whose variables the end of the outermost
    `keras.StatelessScope` initializes. Fallback: they are initialized, and freed with the network.
    """
    try:
        from keras.src.backend.common import global_state

        known = list(global_state.get_global_attribute(_UNINITIALIZED) or [])
    except (ImportError, AttributeError):
        yield
        return
    try:
        yield
    except BaseException:
        global_state.set_global_attribute(_UNINITIALIZED, known)
        raise


def create_torch_parameters(layer: keras.layers.Layer) -> None:
    """Create the `torch.nn.Parameter`s of a Keras layer on the torch backend; nothing happens on other backends.

    Undocumented name: `Layer.torch_params`, which creates them on first access; a layer that was built in a
    `keras.StatelessScope` has none before, so `module.parameters()` is empty. Fallback: Keras creates them at the first
    call of the layer.
    """
    getattr(layer, _TORCH_PARAMS, None)


Shape = tuple[int | None, ...]


Calls = list[tuple[Shape, Shape]]


def call_shapes(model: keras.Model) -> dict[int, Calls]:
    """Shapes of input and output of every call of a layer in a model, by the layer's `id`, without the batch dimension.

    Args:
        model: Functional or `Sequential` model with layers of a single input and output tensor; those of a nested model
            are called whenever it is.
    """
    found: dict[int, Calls] = {}
    seen: set[tuple[int, ...]] = set()  # a call with several outputs has a step for each
    for operation, inputs, output in graph_steps(model):
        call = (id(operation), *map(id, inputs))
        if call in seen:
            continue
        seen.add(call)
        own = {id(operation): [(tuple(inputs[0].shape[1:]), tuple(output.shape[1:]))]}
        for key, shapes in (call_shapes(operation) if getattr(operation, "outputs", None) else own).items():
            found.setdefault(key, []).extend(shapes)
    return found


@contextmanager
def replaced_update(
    optimizer: keras.optimizers.Optimizer, slots: Sequence[str], update: Callable[..., None]
) -> Iterator[bool]:
    """Replace how an optimizer updates a variable, weight decay included, in what is traced inside the block.

    Private names: `Optimizer._apply_weight_decay` and `_use_weight_decay`, because Keras evaluates the learning rate
    schedule again for each decayed variable; `_get_variable_index` and the lists of slot variables, such as
    `Adam._momentums`. Fallback: Keras' own update, with the same values, which takes twice as long to trace.

    Args:
        optimizer: Built Keras optimizer on the TensorFlow backend.
        slots: Names of the attributes with its slot variables, which may be None.
        update: Function `(variable, gradient, rate, decay, *slots)`: a `tf.Variable`, its gradient, the learning rate,
            the factor of weight decay or None, and the variable's slot of each name as a `tf.Variable`.

    Yields:
        Bool, whether the update is replaced.
    """
    if not all(hasattr(optimizer, name) for name in (_DECAY, _DECAYS, _INDEX, *slots)):
        yield False
        return
    kept, decays = [getattr(optimizer, name) or () for name in slots], getattr(optimizer, _DECAYS)

    def update_step(gradient: Any, variable: Any, rate: Any) -> None:
        index = getattr(optimizer, _INDEX)(variable)
        decay = optimizer.weight_decay if decays(variable) else None
        update(variable, gradient, rate, decay, *(slot[index].value for slot in kept))

    try:
        optimizer.update_step = update_step
        setattr(optimizer, _DECAY, lambda variables: None)
        yield True
    finally:
        del optimizer.update_step
        delattr(optimizer, _DECAY)


def quantize_int8(
    calibrated: bytes,
    *,
    input_type: str,
    float_operators: Sequence[str],
    float_tensors: Sequence[str],
    per_channel: bool = True,
) -> bytes:
    """Quantize a float `.tflite` file, whose tensors have ranges, to int8.

    Private name: `tensorflow.lite.python.convert.mlir_quantize`. The public converter has no entry point for a file
    whose ranges were edited. Fallback: a `UserError`.

    Args:
        calibrated: Bytes of the file.
        input_type: `"float32"` or `"uint8"`.
        float_operators: Names of operators that stay float, such as `"SOFTMAX"`.
        float_tensors: Names of tensors whose operators stay float.
        per_channel: Bool, whether each output channel of a kernel has its own scale.

    Raises:
        UserError: The installed TensorFlow lacks the name, or takes other arguments.
    """
    import tensorflow as tf

    name = "tensorflow.lite.python.convert.mlir_quantize"
    try:
        from tensorflow.lite.python.convert import mlir_quantize
    except ImportError:
        _missing("int8", name)
    try:
        return mlir_quantize(
            calibrated,
            disable_per_channel=not per_channel,
            input_data_type=tf.dtypes.as_dtype(input_type),
            output_data_type=tf.float32,
            denylisted_ops=list(float_operators),
            denylisted_nodes=list(float_tensors),
        )
    except TypeError:
        _missing("int8", name)


def quantize_int16x8(calibrated: bytes) -> bytes:
    """Quantize a float `.tflite` file, whose tensors have ranges, to int8 weights, int16 activations and int64 biases.

    Private name: `_calibrator.QuantizeModel` of `tensorflow.lite.python.optimize.calibrator.Calibrator`. The MLIR
    quantizer has no int16, and the public converter always calibrates anew. Fallback: a `UserError`.

    Args:
        calibrated: Bytes of the file.

    Raises:
        UserError: The installed TensorFlow lacks the name, or takes other arguments.
    """
    import numpy as np

    name = "tensorflow.lite.python.optimize.calibrator.Calibrator._calibrator"
    inputs, outputs, activations, biases = (np.dtype(kind).num for kind in ("float32", "float32", "int16", "int64"))
    try:
        from tensorflow.lite.python.optimize.calibrator import Calibrator

        quantizer = Calibrator(calibrated)._calibrator
        return bytes(quantizer.QuantizeModel(inputs, outputs, False, activations, biases, False, False))
    except (ImportError, AttributeError, TypeError):
        _missing("int16x8", name)


@cache
def silence_libtiff() -> bool:
    """Stop libtiff from printing about damaged files to the standard error stream; its errors are raised anyway.

    Private name: the library of `PIL.Image.core`, through which the functions of libtiff are found. Fallback: False is
    returned, and the messages are printed.
    """
    import ctypes

    from PIL import Image

    try:
        library = ctypes.CDLL(Image.core.__file__)
        for function in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            function(None)
    except (AttributeError, OSError):
        return False
    return True


def _missing(precision: str, name: str) -> NoReturn:
    from importlib.metadata import version

    raise UserError(
        f"{precision} export needs {name}, which TensorFlow {version('tensorflow')} lacks or has changed: "
        f"pip install '{TENSORFLOW_RELEASES}'."
    ) from None
