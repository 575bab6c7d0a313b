"""The float32 `.tflite` from which every precision is made: folding, conversion, observed ranges. TensorFlow."""
