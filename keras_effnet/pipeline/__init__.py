"""`tf.data` pipelines from a split to batches: decoding, caching, cropping, augmentation. TensorFlow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
