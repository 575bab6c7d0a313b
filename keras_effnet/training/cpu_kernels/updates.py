"""Fused optimizer updates for training on the CPU.

Keras 3 writes the update of every variable as a dozen operations, and evaluates the learning rate schedule again for
each variable that decays. TensorFlow has a kernel per optimizer. The values are the same; a network of 174 variables is
traced in half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from keras_effnet.models.batch_norm import trains_on_cpu
from keras_effnet.system.private_api import replaced_update


@dataclass(frozen=True)
class _Kernel:
    """TensorFlow's operator for a class of optimizers.

    Args:
        operator: Function of `tf.raw_ops`.
        slots: Attribute of the optimizer with its slot variables -> the operator's argument.
        numbers: Function from the optimizer to further arguments, which are alike for all variables.
        covers: Function that tells whether the operator computes what this optimizer does.
    """

    operator: Callable[..., Any]
    slots: dict[str, str]
    numbers: Callable[[Any], dict[str, Any]]
    covers: Callable[[Any], bool]


def _adam(optimizer: Any) -> dict[str, Any]:
    step = keras.ops.cast(optimizer.iterations + 1, "float32")
    first, second = optimizer.beta_1, optimizer.beta_2
    powers = {"beta1_power": tf.pow(first, step), "beta2_power": tf.pow(second, step)}
    return powers | {"beta1": first, "beta2": second, "epsilon": optimizer.epsilon}


_ADAM = _Kernel(
    tf.raw_ops.ResourceApplyAdam,
    {"_momentums": "m", "_velocities": "v"},
    _adam,
    covers=lambda optimizer: not optimizer.amsgrad,
)
_SGD = _Kernel(
    tf.raw_ops.ResourceApplyKerasMomentum,
    {"momentums": "accum"},
    lambda optimizer: {"momentum": optimizer.momentum, "use_nesterov": optimizer.nesterov},
    covers=lambda optimizer: optimizer.momentum > 0,
)
_RMSPROP = _Kernel(
    tf.raw_ops.ResourceApplyRMSProp,
    {"_velocities": "ms", "_momentums": "mom"},
    lambda optimizer: {name: getattr(optimizer, name) for name in ("rho", "momentum", "epsilon")},
    covers=lambda optimizer: optimizer.momentum > 0 and not optimizer.centered,
)

# Of the stock classes alone: a subclass may compute something else.
_KERNELS: dict[type, _Kernel] = {
    keras.optimizers.Adam: _ADAM,
    keras.optimizers.AdamW: _ADAM,
    keras.optimizers.SGD: _SGD,
    keras.optimizers.RMSprop: _RMSPROP,
}


def _parts(optimizer: Any) -> list[Any]:
    """The optimizers inside loss scaling and `MultiOptimizer`."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(optimizer, "optimizers", [optimizer]))


def _update(optimizer: Any, kernel: _Kernel) -> Callable[..., None]:
    keras_step = optimizer.update_step
    shared: WeakKeyDictionary[Any, dict[str, Any]] = (
        WeakKeyDictionary()
    )  # by graph: all variables take the same tensors

    def numbers() -> dict[str, Any]:
        graph = tf.compat.v1.get_default_graph()
        if graph not in shared:
            found = kernel.numbers(optimizer)
            shared[graph] = {name: tf.constant(each) if type(each) is float else each for name, each in found.items()}
        return shared[graph]

    def update(variable: Any, gradient: Any, rate: Any, decay: float | None, *slots: Any) -> None:
        rate = tf.cast(rate, variable.dtype)
        if decay is not None:
            variable.assign_sub(variable * tf.cast(decay, variable.dtype) * rate)
        if isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32 or tf.executing_eagerly():
            keras_step(gradient, variable, rate)
            return
        handles = {name: slot.handle for name, slot in zip(kernel.slots.values(), slots, strict=True)}
        kernel.operator(var=variable.handle, grad=tf.cast(gradient, tf.float32), lr=rate, **handles, **numbers())

    return update


@contextmanager
def fused_updates(model: keras.Model) -> Iterator[None]:
    """Train a compiled model with fused optimizer updates inside a `with` block.

    Adam and AdamW, and SGD and RMSprop with momentum, also inside loss scaling and `MultiOptimizer`; other optimizers
    and variants update as Keras does, and so does a step that runs eagerly. The optimizer keeps its class, so files
    that are saved inside the block open in plain Keras. Nothing changes on GPUs, under a distribution strategy, or on
    other backends.

    Args:
        model: Keras model whose optimizer is built.

    Example:

    >>> with fused_updates(model):
    ...     model.fit(batches)
    """
    if not trains_on_cpu() or tf.distribute.has_strategy():
        yield
        return
    with ExitStack() as stack:
        for optimizer in _parts(model.optimizer):
            kernel = _KERNELS.get(type(optimizer))
            if kernel and kernel.covers(optimizer):
                stack.enter_context(replaced_update(optimizer, tuple(kernel.slots), _update(optimizer, kernel)))
        model.train_function = None
        try:
            yield
        finally:
            model.train_function = None
