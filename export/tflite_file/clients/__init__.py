"""Which runtimes run a `.tflite` file: rules over its operators and types, by trial or by documents. Pure Python."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
