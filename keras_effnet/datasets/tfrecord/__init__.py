"""TFRecord shards: packed by this package or written by others, and how a pack is written. TensorFlow and Pillow."""
