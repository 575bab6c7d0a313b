"""One module a command, each with a `command`; imports of Keras and TensorFlow stay inside the functions."""
