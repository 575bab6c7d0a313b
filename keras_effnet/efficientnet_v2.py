"""Drop-in replacement of `keras.applications.efficientnet_v2`, with its names and signatures. Keras only.

Example:

>>> from keras_effnet import efficientnet_v2  # instead of: from keras.applications import efficientnet_v2
>>> model = efficientnet_v2.EfficientNetV2B0(weights=None)
"""

from keras_effnet.efficientnet import preprocess_input
from keras_effnet.imagenet import decode_predictions
from keras_effnet.models.efficientnet_v2 import (
    EfficientNetV2B0,
    EfficientNetV2B1,
    EfficientNetV2B2,
    EfficientNetV2B3,
    EfficientNetV2L,
    EfficientNetV2M,
    EfficientNetV2S,
    EfficientNetV2XL,
)

__all__ = [
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2L",
    "EfficientNetV2M",
    "EfficientNetV2S",
    "EfficientNetV2XL",
    "decode_predictions",
    "preprocess_input",
]
