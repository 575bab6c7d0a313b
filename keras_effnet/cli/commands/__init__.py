"""One module per command, each with a `command`. Keras and TensorFlow are imported inside functions only."""
