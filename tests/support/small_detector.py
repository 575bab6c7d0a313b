"""Detectors small enough to build in a test."""

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.detectors import DetectorSpec, detector_spec


def small_detector(name: str = "det-lite0", backbone: str = "lite0", **changes) -> DetectorSpec:
    """A published detector with a fifth of the backbone's depth, a quarter of its width, and narrow heads."""
    sizes = {"image_size": 64, "width": 8, "cells": 1, "head_depth": 1, "classes": 3}
    return detector_spec(name, backbone=architecture_spec(backbone, depth=0.2, width=0.25), **(sizes | changes))
