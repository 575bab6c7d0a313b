"""EfficientNetV2 builders: B0-B3, S, M, L and XL, as `keras.applications` has them. Keras only, no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.models.arguments import InputShape
from keras_effnet.models.efficientnet import DType, EfficientNet, Padding, Pooling
from keras_effnet.models.variants import variant


def _published(
    spec: ArchitectureSpec,
    include_top: bool = True,
    weights: str | Path | None = "imagenet",
    input_tensor: Any = None,
    input_shape: InputShape | None = None,
    pooling: Pooling | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    *,
    drop_connect_rate: float | None = None,
    dropout_rate: float | None = None,
    bn_momentum: float | None = None,
    bn_epsilon: float | None = None,
    padding: Padding | None = None,
    dtype: DType = None,
) -> keras.Model:
    """`EfficientNet` with the order of arguments of V2 in `keras.applications`."""
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


_SOURCE = "Tan & Le, EfficientNetV2 (ICML 2021)"

EfficientNetV2B0 = variant(_published, "v2-b0", "V2B0", _SOURCE)
EfficientNetV2B1 = variant(_published, "v2-b1", "V2B1", _SOURCE)
EfficientNetV2B2 = variant(_published, "v2-b2", "V2B2", _SOURCE)
EfficientNetV2B3 = variant(_published, "v2-b3", "V2B3", _SOURCE)
EfficientNetV2S = variant(_published, "v2-s", "V2S", _SOURCE)
EfficientNetV2M = variant(_published, "v2-m", "V2M", _SOURCE)
EfficientNetV2L = variant(_published, "v2-l", "V2L", _SOURCE)
EfficientNetV2XL = variant(_published, "v2-xl", "V2XL", _SOURCE)
