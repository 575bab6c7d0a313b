"""Measurements of `.tflite` files: agreement with the Keras model, latency, CPU time, peak memory."""
