"""Builders of published networks: a general builder, bound to one architecture. Keras only."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Concatenate, ParamSpec, TypeVar

import keras

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.detectors import DETECTORS, DetectorSpec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.errors import closest

P = ParamSpec("P")
S = TypeVar("S", ArchitectureSpec, DetectorSpec)


def variant(
    network: Callable[Concatenate[ArchitectureSpec, P], keras.Model], name: str, title: str, source: str
) -> Callable[P, keras.Model]:
    """Bind a builder to a published network; type checkers see the builder's remaining parameters.

    Args:
        network: Function whose first argument is a spec.
        name: String, one of `list_models()`.
        title: String, the part of the function's name that follows `EfficientNet`, such as `"B0"`.
        source: String, publication of the network.

    Returns:
        The function `EfficientNet{title}`.
    """
    spec = architecture_spec(name)
    builder = _bound(network, spec, f"EfficientNet{title}")
    builder.__doc__ = f"""Build EfficientNet-{title}: width {spec.width}, depth {spec.depth}, {spec.image_size} pixels.

    A drop-in replacement for `keras.applications`: same arguments, same outputs, same names of the layers that hold
    weights. As there, `weights` is `"imagenet"` by default; `weights=None` starts from random ones. `EfficientNet`
    documents the arguments.

    Example:

    >>> model = keras_effnet.EfficientNet{title}(weights=None, classes=10)

    Source: {source}.
    """
    return builder


def detector_variant(
    network: Callable[Concatenate[DetectorSpec, P], keras.Model], name: str, title: str, source: str
) -> Callable[P, keras.Model]:
    """Bind a builder of detectors to a published one.

    Args:
        network: Function whose first argument is a `DetectorSpec`.
        name: String, key of `DETECTORS`.
        title: String, the part of the function's name that follows `EfficientDet`, such as `"D0"`.
        source: String, publication of the network.

    Returns:
        The function `EfficientDet{title}`.
    """
    spec = DETECTORS[name]
    builder = _bound(network, spec, f"EfficientDet{title}")
    builder.__doc__ = f"""Build EfficientDet-{title}: {spec.backbone.name}, {spec.image_size} pixels.

    Its BiFPN has {spec.cells} cells of {spec.width} channels. `EfficientDet` documents arguments and outputs.

    Example:

    >>> model = keras_effnet.EfficientDet{title}(classes=3)

    Source: {source}.
    """
    return builder


def _bound(network: Callable[Concatenate[S, P], keras.Model], spec: S, name: str) -> Callable[P, keras.Model]:
    _, *parameters = inspect.signature(network).parameters.values()
    accepted = inspect.Signature(parameters)

    def builder(*args: P.args, **kwargs: P.kwargs) -> keras.Model:
        try:
            accepted.bind(*args, **kwargs)
        except TypeError as error:  # in Python's own words, but by the name that was called
            raise TypeError(f"{name}() {error}{_nearest(kwargs, accepted.parameters)}") from None
        return network(spec, *args, **kwargs)

    # `help` and completion at run time show the published values as defaults.
    shown = [
        each.replace(default=getattr(spec, each.name, None)) if each.default is None else each for each in parameters
    ]
    vars(builder)["__signature__"] = inspect.Signature(shown, return_annotation=keras.Model)
    builder.__name__ = builder.__qualname__ = name
    return builder


def _nearest(given: Iterable[str], accepted: Collection[str]) -> str:
    """Suggestion for the first argument that is not accepted; empty if there is none."""
    wrong = next((each for each in given if each not in accepted), None)
    near = closest(wrong, accepted) if wrong else None
    return f". Did you mean {near!r}?" if near else ""
