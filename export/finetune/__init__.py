"""Quantization-aware training, pruning and clustering, in a process of their own."""
