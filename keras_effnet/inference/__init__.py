"""A trained network of any kind, `.keras`, `.tflite` or run folder, as one object that predicts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
