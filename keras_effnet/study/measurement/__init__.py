"""Measured time of training steps, predictions and single convolutions of a network."""
