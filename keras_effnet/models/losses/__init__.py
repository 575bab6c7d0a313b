"""Losses that Keras lacks. Keras only."""
