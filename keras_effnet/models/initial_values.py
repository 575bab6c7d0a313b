"""Deferred variable initialization.

Drawing random initial values takes over half of B7's build time, and a weights file then replaces them. TensorFlow also
compiles a kernel for each name of a variable's handle: one per variable within the name scopes of the layers, but only
one per distinct short name once all layers are built. Keras only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_effnet.system.private_api import (
    create_torch_parameters,
    discarding_deferred_variables,
    set_deferred_initializer,
)


def _given_value(value: np.ndarray, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Keras initializer that returns `value`; contiguous, because torch would keep the strides of a transposed view.

    NumPy makes an array of one of a contiguous scalar, hence the shape.
    """
    return keras.ops.convert_to_tensor(np.ascontiguousarray(value).reshape(value.shape), dtype)


def build_with(
    network: Callable[[], keras.Model],
    values: Callable[[keras.Model], Iterable[tuple[keras.Variable, np.ndarray]]],
) -> keras.Model:
    """Build a network whose variables start with given values; an error leaves no half-built network behind.

    Args:
        network: Function that builds it.
        values: Function from the network, whose variables have shapes but no values yet, to pairs of variable and
            value. A variable that it leaves out starts with a value of its initializer.

    Returns:
        The network.
    """
    # Variables created in this scope are initialized when it ends, and configs keep the published initializers.
    # Twice: the end of the scope can fail, too (out of memory, Ctrl-C), and would then fail in every later build.
    with discarding_deferred_variables(), keras.StatelessScope(), discarding_deferred_variables():
        model = network()
        others = [
            (variable, value)
            for variable, value in values(model)
            if not set_deferred_initializer(variable, partial(_given_value, value))
        ]
    for variable, value in others:  # of layers in front of `input_tensor`, which had values before
        variable.assign(value)
    for layer in (model, *model.layers):
        create_torch_parameters(layer)
    return model
