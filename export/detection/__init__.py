"""Detectors as `.tflite` files: post-processing inside the file."""
