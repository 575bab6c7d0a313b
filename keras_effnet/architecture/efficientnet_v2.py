"""Stage tables of EfficientNetV2. Pure Python.

Source: Tan & Le, EfficientNetV2: Smaller Models and Faster Training (ICML 2021), table 4, and the authors' released
tables, which have XL too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec

_fused = partial(StageSpec, block="fused")
_se_mbconv = partial(StageSpec, se_ratio=0.25, depthwise="dwconv2")

#              kernel stride expand filters repeats
V2_B0 = ArchitectureSpec(
    name="efficientnetv2-b0",
    stem=32,
    stages=(
        _fused(3, 1, 1, 16, 1),
        _fused(3, 2, 4, 32, 2),
        _fused(3, 2, 4, 48, 2),
        _se_mbconv(3, 2, 4, 96, 3),
        _se_mbconv(3, 1, 6, 112, 5),
        _se_mbconv(3, 2, 6, 192, 8),
    ),
    head=1280,
    rounding_floor=0.0,
    bn_momentum=0.9,
)

V2_S = replace(
    V2_B0,
    name="efficientnetv2-s",
    stem=24,
    stages=(
        _fused(3, 1, 1, 24, 2),
        _fused(3, 2, 4, 48, 4),
        _fused(3, 2, 4, 64, 4),
        _se_mbconv(3, 2, 4, 128, 6),
        _se_mbconv(3, 1, 6, 160, 9),
        _se_mbconv(3, 2, 6, 256, 15),
    ),
    image_size=384,
    pixel_mean=128.0,
    pixel_std=128.0,
)

V2_M = replace(
    V2_S,
    name="efficientnetv2-m",
    stages=(
        _fused(3, 1, 1, 24, 3),
        _fused(3, 2, 4, 48, 5),
        _fused(3, 2, 4, 80, 5),
        _se_mbconv(3, 2, 4, 160, 7),
        _se_mbconv(3, 1, 6, 176, 14),
        _se_mbconv(3, 2, 6, 304, 18),
        _se_mbconv(3, 1, 6, 512, 5),
    ),
    image_size=480,
    dropout_rate=0.3,
)

V2_L = replace(
    V2_M,
    name="efficientnetv2-l",
    stem=32,
    stages=(
        _fused(3, 1, 1, 32, 4),
        _fused(3, 2, 4, 64, 7),
        _fused(3, 2, 4, 96, 7),
        _se_mbconv(3, 2, 4, 192, 10),
        _se_mbconv(3, 1, 6, 224, 19),
        _se_mbconv(3, 2, 6, 384, 25),
        _se_mbconv(3, 1, 6, 640, 7),
    ),
    dropout_rate=0.4,
)

V2_XL = replace(
    V2_L,
    name="efficientnetv2-xl",
    stages=(
        _fused(3, 1, 1, 32, 4),
        _fused(3, 2, 4, 64, 8),
        _fused(3, 2, 4, 96, 8),
        _se_mbconv(3, 2, 4, 192, 16),
        _se_mbconv(3, 1, 6, 256, 24),
        _se_mbconv(3, 2, 6, 512, 32),
        _se_mbconv(3, 1, 6, 640, 8),
    ),
    image_size=512,
)
