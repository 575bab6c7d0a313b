"""Evaluation of classifiers: metrics, calibration, plots and Grad-CAM. NumPy, Matplotlib and TensorFlow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
