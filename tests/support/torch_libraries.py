"""Imports of torch's libraries where their compiled half does not load."""

from __future__ import annotations

from types import ModuleType


def torchvision_models() -> ModuleType:
    """torchvision's networks, which are plain torch: its compiled half may well have been built for another torch.

    timm imports torchvision too: call this first.
    """
    try:
        import torchvision.models as models
    except RuntimeError:
        import torch

        for operator in ("nms", "qnms"):  # declared on import, never called here
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
        import torchvision.models as models
    return models
