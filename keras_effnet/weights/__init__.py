"""Checkpoints of Keras and torch loaded into networks, strictly and safely."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
