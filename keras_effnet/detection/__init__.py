"""Detection without a network: anchors, box codes, targets, losses, non-maximum suppression, average precision.

numpy; targets and losses are TensorFlow's.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
