"""Transfer learning: freezing, new heads, layer-wise learning rates, batch normalization recalibration. Keras only."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
