"""Labelled image datasets from folders, CSV lists, TFRecord shards, TensorFlow Datasets and arrays. TensorFlow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
