"""Constants of a detector's losses. Pure Python.

Source: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017); EfficientDet (CVPR 2020), section 5.1, and its
published training code.
"""

from __future__ import annotations

ALPHA, GAMMA = 0.25, 1.5
HUBER_DELTA, BOX_WEIGHT = 0.1, 50.0
