"""Processes that train together: their environment variables, connection, and which of them writes files.

Frameworks are imported when needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from keras_effnet.errors import UserError, first_line

# What `keras.distribution.initialize` reads; `keras-effnet launch` sets them.
ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
PROCESS_ID = "KERAS_DISTRIBUTION_PROCESS_ID"


def number(variable: str) -> int:
    """The value of an environment variable as an integer."""
    text = os.environ.get(variable, "")
    if not text.isdecimal():
        raise UserError(f"{variable} must be an integer of 0 or more, got {text!r}; `keras-effnet launch` sets it.")
    return int(text)


def in_a_group() -> bool:
    """Whether this process is one of several, by its environment.

    Raises:
        UserError: Some of the three variables are missing or contradict each other.
    """
    given = [name for name in (ADDRESSES, PROCESSES, PROCESS_ID) if os.environ.get(name)]
    if not given:
        return False
    for name in (ADDRESSES, PROCESSES, PROCESS_ID):
        if name not in given:
            raise UserError(f"{given[0]} is set but {name} is not; set all three, or use `keras-effnet launch`.")
    if number(PROCESS_ID) >= number(PROCESSES):
        raise UserError(f"{PROCESS_ID} must be below {PROCESSES}, {number(PROCESSES)}; got {number(PROCESS_ID)}.")
    return number(PROCESSES) > 1


def join() -> None:
    """Connect this process with the other ones of its group; call it before JAX initializes its devices.

    Raises:
        UserError: The processes could not connect.
    """
    import jax
    import keras

    if not in_a_group() or jax.distributed.is_initialized():
        return
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"The {number(PROCESSES)} processes could not connect: {first_line(error)}") from error


def is_chief() -> bool:
    """Whether this process writes the files and reports to the user: process 0, or the only one."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        return jax.process_index() == 0
    return not in_a_group() or number(PROCESS_ID) == 0


@contextmanager
def alone() -> Iterator[None]:
    """Context for work that only one of several processes does, such as saving, loading or evaluating a model.

    Inside `scope("data-parallel")` a process that creates a variable waits until all processes create it, and Keras
    creates an optimizer whenever it saves one. Without this context, a chief that saves would wait forever.

    Example:

    >>> from keras_effnet.training import distribution
    >>> if distribution.is_chief():
    ...     with distribution.alone():
    ...         model.save("flowers.keras")
    """
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
