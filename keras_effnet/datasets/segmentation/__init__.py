"""Datasets of images with masks: layouts of folders, pairs of files and their checks."""
