"""Segmentation networks: a decoder behind the feature maps of any backbone. Keras only.

The networks consist of stock layers, so a saved `.keras` file opens without this package. Maps are enlarged by whole
factors and cropped to the size of the finer map, which fits any image size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import keras
from keras import layers

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.errors import UserError, one_of
from keras_effnet.models.arguments import InputShape, check_data_format, checked_classes, from_keras
from keras_effnet.models.efficientnet import DType, EfficientNet
from keras_effnet.models.feature_maps import features
from keras_effnet.models.saving import policy_of

DecoderName: TypeAlias = Literal["unet", "fpn", "deeplab-lite"]

_INITIALIZER = "he_normal"
# Layers of Keras that move or mix pixels while training, which the masks do not follow.
_MOVING = {
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomCrop", "RandomShear"),
    *("RandomPerspective", "RandomElasticTransform", "RandAugment", "AugMix", "MixUp", "CutMix"),
}


@dataclass(frozen=True)
class Builder:
    """Layers of a decoder.

    Args:
        policy: Dtype policy of the layers.
        bn_momentum: Float, of batch normalization.
    """

    policy: Any
    bn_momentum: float = 0.9

    def conv(self, x: Any, filters: int, kernel: int, name: str) -> Any:
        """Convolution, batch normalization and ReLU, which int8 represents well."""
        x = layers.Conv2D(
            filters,
            kernel,
            padding="same",
            use_bias=False,
            kernel_initializer=_INITIALIZER,
            dtype=self.policy,
            name=f"{name}_conv",
        )(x)
        x = layers.BatchNormalization(momentum=self.bn_momentum, dtype=self.policy, name=f"{name}_bn")(x)
        return layers.Activation("relu", dtype=self.policy, name=f"{name}_activation")(x)

    def enlarge(self, x: Any, factor: int, like: Any, name: str, interpolation: str = "nearest") -> Any:
        """Enlarge a map by a whole factor, cropped to the sides of a finer one."""
        if factor == 1:
            return x
        height, width = x.shape[1:3]
        if None in (height, width, *like.shape[1:3]):
            enlarge = layers.UpSampling2D(factor, interpolation=interpolation, dtype=self.policy, name=name)
            return enlarge(x)
        size = factor * height, factor * width
        # In a .tflite file UpSampling2D is RESHAPE and TILE, Resizing is one operator.
        x = layers.Resizing(*size, interpolation=interpolation, dtype=self.policy, name=name)(x)
        rows, columns = size[0] - like.shape[1], size[1] - like.shape[2]
        if rows or columns:
            x = layers.Cropping2D(((0, rows), (0, columns)), dtype=self.policy, name=f"{name}_crop")(x)
        return x


def _stride(level: str) -> int:
    return 2 ** int(level[1:])


def _levels(maps: Mapping[str, Any], finest: str) -> list[str]:
    """Levels from the coarsest to the finest that a decoder uses, of those that the network has."""
    return [level for level in reversed(list(maps)) if _stride(level) >= _stride(finest)]


def _unet(maps: Mapping[str, Any], build: Builder, widths: Mapping[str, int]) -> tuple[Any, int]:
    """Skip connections from each level, two convolutions on each (Ronneberger et al., MICCAI 2015)."""
    coarsest, *finer = _levels(maps, "P1")
    x, stride = maps[coarsest], _stride(coarsest)
    for level in finer:
        name = f"decoder_{level.lower()}"
        x = build.enlarge(x, stride // _stride(level), maps[level], f"{name}_upsample")
        x = layers.Concatenate(dtype=build.policy, name=f"{name}_concat")([x, maps[level]])
        for half in ("a", "b"):
            x = build.conv(x, widths[level], 3, f"{name}{half}")
        stride = _stride(level)
    return x, stride


def _fpn(maps: Mapping[str, Any], build: Builder, widths: Mapping[str, int]) -> tuple[Any, int]:
    """Feature pyramid, whose levels are added at the finest one (Kirillov et al., Panoptic FPN, CVPR 2019)."""
    coarsest, *finer = _levels(maps, "P2")
    x, stride = (
        build.conv(maps[coarsest], widths["lateral"], 1, f"decoder_{coarsest.lower()}_lateral"),
        _stride(coarsest),
    )
    pyramid = {coarsest: x}
    for level in finer:
        name = f"decoder_{level.lower()}"
        lateral = build.conv(maps[level], widths["lateral"], 1, f"{name}_lateral")
        x = build.enlarge(x, stride // _stride(level), lateral, f"{name}_upsample")
        x = layers.Add(dtype=build.policy, name=f"{name}_add")([x, lateral])
        pyramid[level], stride = x, _stride(level)
    merged = []
    for level, map_ in pyramid.items():
        name = f"decoder_{level.lower()}_smooth"
        smooth = build.conv(map_, widths["smooth"], 3, name)
        merged.append(build.enlarge(smooth, _stride(level) // stride, x, f"{name}_upsample"))
    total = layers.Add(dtype=build.policy, name="decoder_add")(merged) if len(merged) > 1 else merged[0]
    return total, stride


def _deeplab_lite(maps: Mapping[str, Any], build: Builder, widths: Mapping[str, int]) -> tuple[Any, int]:
    """Lite R-ASPP: gated coarsest map beside a skip connection (Howard et al., MobileNetV3, ICCV 2019)."""
    coarsest, *finer = _levels(maps, "P3")
    deep = maps[coarsest]
    x = build.conv(deep, widths["aspp"], 1, "decoder_aspp")
    gate = layers.GlobalAveragePooling2D(keepdims=True, dtype=build.policy, name="decoder_pool")(deep)
    gate = layers.Conv2D(widths["aspp"], 1, dtype=build.policy, name="decoder_gate_conv")(gate)
    gate = layers.Activation("sigmoid", dtype=build.policy, name="decoder_gate_activation")(gate)
    x = layers.Multiply(dtype=build.policy, name="decoder_gated")([x, gate])
    if not finer:
        return x, _stride(coarsest)
    skip = build.conv(maps[finer[-1]], widths["skip"], 1, "decoder_skip")
    x = build.enlarge(x, _stride(coarsest) // _stride(finer[-1]), skip, "decoder_upsample", "bilinear")
    x = layers.Concatenate(dtype=build.policy, name="decoder_concat")([x, skip])
    return build.conv(x, widths["fuse"], 3, "decoder_fuse"), _stride(finer[-1])


def _refuse_augmentation(model: keras.Model, name: str) -> None:
    for layer in model.layers:
        if getattr(layer, "layers", None):
            _refuse_augmentation(layer, name)
        elif type(layer).__name__ in _MOVING:
            raise UserError(
                f"{name} augments inside: its layer {layer.name} ({type(layer).__name__}) moves the pixels of images, "
                "but not of their masks. Build the backbone without it, and augment images and masks together."
            )


@dataclass(frozen=True)
class Decoder:
    """One kind of decoder.

    Args:
        build: Function from feature maps, `Builder` and widths to the last map and its stride.
        widths: Dict from level or role to the number of channels.
    """

    build: Callable[[Mapping[str, Any], Builder, Mapping[str, int]], tuple[Any, int]]
    widths: Mapping[str, int]


DECODERS: dict[str, Decoder] = {
    "unet": Decoder(_unet, {"P5": 192, "P4": 128, "P3": 64, "P2": 32, "P1": 16}),
    "fpn": Decoder(_fpn, {"lateral": 96, "smooth": 64}),
    "deeplab-lite": Decoder(_deeplab_lite, {"aspp": 128, "skip": 32, "fuse": 64}),
}


def segmentation_model(
    backbone: keras.Model | ArchitectureSpec | str,
    classes: int,
    decoder: DecoderName = "unet",
    *,
    activation: str | None = "auto",
    weights: Any = None,
    input_shape: InputShape | None = None,
    dropout_rate: float = 0.0,
    dtype: DType = None,
    name: str | None = None,
) -> keras.Model:
    """Build a segmentation network: a decoder that turns the feature maps of a backbone into a map per class.

    | decoder | finest map | cost |
    |---|---|---|
    | `"unet"` | half of the input's sides, skip connections from each level | highest, finest outlines |
    | `"fpn"` | a quarter, pyramid of levels | medium |
    | `"deeplab-lite"` | an eighth, Lite R-ASPP | lowest |

    The last map is enlarged bilinearly to the size of the input. A classifier of the backbone is left out. The layers
    of the backbone are shared, so training one model trains the other.

    Args:
        backbone: Keras model whose feature maps are used: of this package, of `keras.applications`, or another one; or
            an `ArchitectureSpec` or name of `list_models()`.
        classes: Int, number of classes, background included; 1 for one kind of object on a background.
        decoder: `"unet"`, `"fpn"` or `"deeplab-lite"`.
        activation: `"softmax"`, `"sigmoid"` or None for logits; by default sigmoid for one class, else softmax.
        weights: As in `EfficientNet`, for a backbone given by spec or name; the decoder is always initialized randomly.
        input_shape: `(height, width, 3)` of such a backbone; the spec's size by default. A network with open sides,
            `(None, None, 3)`, accepts sides that are multiples of 32 and is exported at `image_size=`.
        dropout_rate: Float in [0, 1), of channels before the last convolution.
        dtype: Dtype policy, such as `"mixed_float16"`; that of the backbone by default. The output is float32.
        name: String, name of the model.

    Returns:
        A functional `keras.Model` of stock layers with output `(N, height, width, classes)` in float32.

    Raises:
        UserError: An unknown decoder or activation, or a backbone that has no feature maps, or that augments inside.

    Example:

    >>> model = keras_effnet.segmentation_model("lite0", classes=3, input_shape=(350, 525, 3))
    >>> model.output_shape
    (None, 350, 525, 3)
    """
    check_data_format()
    classes = checked_classes(classes)
    recipe = DECODERS[one_of("decoder", decoder, DECODERS)]
    if activation == "auto":
        activation = "sigmoid" if classes == 1 else "softmax"
    from_keras("activation", keras.activations.get, activation)
    if activation == "softmax" and classes == 1:
        raise UserError("A softmax over one class is always 1: use activation='sigmoid', or two classes.")
    if not 0 <= dropout_rate < 1:
        raise UserError(f"dropout_rate must lie in [0, 1), got {dropout_rate}.")
    if isinstance(backbone, str | ArchitectureSpec):
        side = architecture_spec(backbone).image_size
        backbone = EfficientNet(backbone, False, weights, input_shape=input_shape or (side, side, 3), dtype=dtype)
    elif weights is not None or input_shape is not None:
        raise UserError("weights and input_shape belong to a backbone given by name; this one is built already.")
    pyramid = features(backbone)
    _refuse_augmentation(pyramid, backbone.name)
    policy = keras.dtype_policies.get(dtype) if dtype is not None else policy_of(backbone)
    build = Builder(policy)
    maps = dict(sorted(pyramid.output.items(), key=lambda item: _stride(item[0])))
    x, stride = recipe.build(maps, build, recipe.widths)
    if dropout_rate:
        x = layers.SpatialDropout2D(dropout_rate, dtype=policy, name="decoder_dropout")(x)
    x = layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)
    x = Builder("float32").enlarge(x, stride, pyramid.inputs[0], "masks", "bilinear")
    if activation is not None:
        x = layers.Activation(activation, dtype="float32", name="predictions")(x)
    model = keras.Model(pyramid.input, x, name=name or f"{backbone.name}_{decoder.replace('-', '_')}")
    model.dtype_policy = policy  # `compile` reads it to decide on loss scaling
    return model
