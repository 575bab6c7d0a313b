"""MACs, parameters, activations and training memory, counted from a spec or from a Keras model. Pure Python."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
