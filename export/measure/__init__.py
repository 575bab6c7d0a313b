"""Latency and peak-memory measurements of `.tflite` files."""
