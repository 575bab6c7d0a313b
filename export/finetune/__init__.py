"""Quantization-aware training, pruning and clustering, each in a subprocess."""
