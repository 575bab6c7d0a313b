"""Training: loop, run folders, checkpoints, moving average, several devices, memory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
