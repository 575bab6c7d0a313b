"""Inference over the seeds of a study: comparisons of networks, and the seeds that they need."""
