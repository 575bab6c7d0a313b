"""Memory of training: what is free, what a step takes, and the batch size that fits. TensorFlow when needed."""
