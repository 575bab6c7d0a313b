"""Faster kernels for training on the CPU; models, optimizers and files stay plain Keras."""
