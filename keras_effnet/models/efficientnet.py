"""Networks from specs: `build`, `EfficientNet`, and B0..B7 and Lite0..4 under the signatures of `keras.applications`.

Stock Keras layers only, so a saved `.keras` file opens without this package. Keras alone, no `tf.`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import keras

from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
from keras_effnet.architecture.network_parts import blocks
from keras_effnet.architecture.specs import ArchitectureSpec, expand
from keras_effnet.errors import UserError, one_of
from keras_effnet.models.blocks import BLOCKS, LayerOptions, classifier, conv_bn_act
from keras_effnet.models.fused_batch_norm import fuse_batch_norm
from keras_effnet.models.initial_values import build_with
from keras_effnet.models.saving import TOO_DEEP
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.weights.loading import matched_values
from keras_effnet.weights.pretrained import IMAGENET_CLASSES, imagenet_weights

MIN_SIZE = 32


def _checked_shape(input_shape, spec: ArchitectureSpec, include_top: bool) -> tuple:
    if input_shape is None:
        side = spec.image_size if include_top else None
        return (side, side, 3)
    shape = tuple(input_shape)
    if len(shape) != 3 or shape[2] is None:
        raise UserError(f"input_shape must be (height, width, channels), got {input_shape}.")
    if any(side is not None and side < MIN_SIZE for side in shape[:2]):
        raise UserError(f"input_shape must be at least {MIN_SIZE}x{MIN_SIZE}, got {input_shape}.")
    return shape


def build(
    spec: ArchitectureSpec,
    *,
    include_top: bool = True,
    input_tensor=None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    include_preprocessing: bool = True,
    dtype=None,
) -> keras.Model:
    """Builds a functional Keras model from a spec, with random weights. The graph depends on the arguments alone.

    See `EfficientNet` for the arguments.
    """
    if pooling is not None:
        one_of("pooling", pooling, ("avg", "max"))
    if include_top and classes < 1:
        raise UserError(f"classes must be at least 1, got {classes}.")
    given = input_tensor.shape[1:] if input_tensor is not None else input_shape
    shape = _checked_shape(given, spec, include_top)
    network = expand(spec, channels=shape[2], image_size=shape[0])
    options = LayerOptions(keras.layers, spec, dtype)
    layers = keras.layers

    x = keras.Input(shape) if input_tensor is None else input_tensor
    inputs = x if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    if isinstance(inputs, list) and len(inputs) == 1:
        (inputs,) = inputs
    if include_preprocessing:
        scale, offset = ImageSpec.of(spec, channels=shape[2]).scale_and_offset()
        # float32 under any policy: float16 has no room for a mean of 123 subtracted from a pixel.
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
        x = classifier(x, classes, classifier_activation, spec.dropout_rate, options)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D(dtype=dtype, name="avg_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(dtype=dtype, name="max_pool")(x)

    try:
        model = keras.Model(inputs, x, name=name or spec.name)
    except RecursionError:
        raise UserError(TOO_DEEP) from None
    if dtype is not None:
        # `compile` looks here, not at the layers, to decide on loss scaling.
        model.dtype_policy = keras.dtype_policies.get(dtype)
    return fuse_batch_norm(model)


def EfficientNet(
    spec_or_phi: ArchitectureSpec | str | float | None = None,
    include_top: bool = True,
    weights: str | None = None,
    input_tensor=None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
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
    padding: str | None = None,
    dtype=None,
) -> keras.Model:
    """Builds any network: a spec, a name, or B0 scaled by a compound coefficient.

    Args:
        spec_or_phi: `ArchitectureSpec`, a name of `list_models()`, or a float phi. `EfficientNet(2.5)` and
            `EfficientNet(phi=2.5)` scale B0 by the paper's formula.
        include_top: Bool, whether to end with pooling and the classifier.
        weights: None for random weights, a path of a file that `load_weights` reads, or `"imagenet"`: B0-B7 are
            downloaded once, Lite0-2 come with the extra `[pretrained]`. With another number of classes than theirs
            the classifier is a fresh one; a stem of another channel count is adapted (see `weights.adapt_stem`).
        input_tensor: Keras tensor to start from, in place of a new input.
        input_shape: `(height, width, channels)`, each side at least 32 or None. By default the spec's size with
            `include_top`, else any size. Pixels arrive in 0..255.
        pooling: With `include_top=False`: None for the `(N, h, w, channels)` feature map, `"avg"` or `"max"`.
        classes: Int, outputs of the classifier.
        classifier_activation: `"softmax"`, or None for logits.
        name: String, name of the model.
        phi: Float, any real number, in place of `spec_or_phi`.
        include_preprocessing: Bool, whether the network normalises pixels itself.
        drop_connect_rate: Float in [0, 1), stochastic depth of the last block; the spec's 0.2 by default.
        dropout_rate: Float in [0, 1), before the classifier; the published rate by default.
        bn_momentum: Float, 0.99 by default; 0.9 suits short trainings.
        bn_epsilon: Float, 1e-3 by default; weights that come from torch need 1e-5.
        padding: `"same"` by default, or `"symmetric"` for weights that come from torch.
        dtype: Dtype policy, `"mixed_float16"` for instance; the global one by default. The classifier is float32
            under any policy, and `compile` scales the loss under `mixed_float16`.

    Returns:
        A functional `keras.Model` of stock layers.

    Raises:
        UserError: An argument is out of range, or weights and network disagree.

    Example:

    >>> model = keras_effnet.EfficientNet(phi=-3, classes=10, input_shape=(64, 64, 3))

    Source: Tan & Le, EfficientNet (ICML 2019).
    """
    overrides = {
        "drop_connect_rate": drop_connect_rate,
        "dropout_rate": dropout_rate,
        "bn_momentum": bn_momentum,
        "bn_epsilon": bn_epsilon,
        "padding": padding,
    }
    spec = replace(_spec(spec_or_phi, phi), **{key: value for key, value in overrides.items() if value is not None})
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

    def values(model: keras.Model):
        if path is None:
            return ()
        # Whoever asks for other classes or channels than the published ones knows that not all weights can fit.
        return matched_values(model, path, adapt=classes != IMAGENET_CLASSES or model.input_shape[-1] != 3)

    return build_with(network, values)


def features(model: keras.Model, levels: Sequence[str] | None = None) -> keras.Model:
    """The feature maps of a network by stride, for detection, segmentation or a look inside.

    Level `"P3"` is the last block whose output has an eighth (2^-3) of the input's sides: `"P1"` to `"P5"` in the
    published networks. All layers are shared with `model`, whose graph is flat.

    Args:
        model: Model of this package, with or without classifier; a reloaded `.keras` too.
        levels: Names of the levels wanted, all by default.

    Returns:
        A functional model from the same input to a dict from level name to feature map
        `(N, ceil(height / stride), ceil(width / stride), channels)`, fine to coarse.

    Raises:
        UserError: A level that the network does not have.

    Example:

    >>> backbone = keras_effnet.EfficientNetB0(include_top=False, weights=None, input_shape=(224, 224, 3))
    >>> {name: output.shape[1:] for name, output in keras_effnet.features(backbone, ["P4", "P5"]).output.items()}
    {'P4': (14, 14, 112), 'P5': (7, 7, 320)}

    Source: the levels of feature pyramids, Lin et al. (CVPR 2017).
    """
    found = {f"P{block.stride.bit_length() - 1}": block.output for block in blocks(model)}
    wanted = list(found) if levels is None else [one_of("level", level, found) for level in levels]
    return keras.Model(model.input, {level: found[level] for level in wanted}, name=f"{model.name}_features")


def _spec(spec_or_phi, phi: float | None) -> ArchitectureSpec:
    if (spec_or_phi is None) == (phi is None):
        raise UserError("EfficientNet takes a spec, a name or a phi, exactly one of them: EfficientNet(phi=2.5).")
    if isinstance(spec_or_phi, (ArchitectureSpec, str)):
        return architecture_spec(spec_or_phi)
    return architecture_spec(EFFICIENTNET_B0, phi=phi if spec_or_phi is None else spec_or_phi)


def _variant(variant: str, title: str) -> Callable[..., keras.Model]:
    """The builder of one published network, with the arguments and defaults of `keras.applications`."""
    spec = architecture_spec(variant)

    def builder(
        include_top: bool = True,
        weights: str | None = "imagenet",
        input_tensor=None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: str | None = "softmax",
        name: str = spec.name,
        *,
        include_preprocessing: bool = True,
        drop_connect_rate: float = spec.drop_connect_rate,
        dropout_rate: float = spec.dropout_rate,
        bn_momentum: float = spec.bn_momentum,
        bn_epsilon: float = spec.bn_epsilon,
        padding: str = spec.padding,
        dtype=None,
    ) -> keras.Model:
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

    builder.__name__ = builder.__qualname__ = f"EfficientNet{title}"
    builder.__doc__ = f"""EfficientNet-{title}: width {spec.width}, depth {spec.depth}, {spec.image_size} pixels.

    A drop-in for `keras.applications`: same arguments, same network, same layer names. `weights` is `"imagenet"` by
    default there and here; pass `weights=None` for random ones. The other arguments are those of `EfficientNet`.

    Example:

    >>> model = keras_effnet.EfficientNet{title}(weights=None, classes=10)

    Source: {"EfficientNet-Lite (TensorFlow TPU models)" if "Lite" in title else "EfficientNet (ICML 2019), table 2"}.
    """
    return builder


EfficientNetB0 = _variant("b0", "B0")
EfficientNetB1 = _variant("b1", "B1")
EfficientNetB2 = _variant("b2", "B2")
EfficientNetB3 = _variant("b3", "B3")
EfficientNetB4 = _variant("b4", "B4")
EfficientNetB5 = _variant("b5", "B5")
EfficientNetB6 = _variant("b6", "B6")
EfficientNetB7 = _variant("b7", "B7")
EfficientNetLite0 = _variant("lite0", "Lite0")
EfficientNetLite1 = _variant("lite1", "Lite1")
EfficientNetLite2 = _variant("lite2", "Lite2")
EfficientNetLite3 = _variant("lite3", "Lite3")
EfficientNetLite4 = _variant("lite4", "Lite4")
