"""Latency and peak memory of `.tflite` files, measured."""
