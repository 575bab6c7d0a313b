"""Training loop, checkpoints, moving average of the weights, devices and memory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
