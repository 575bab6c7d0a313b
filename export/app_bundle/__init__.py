"""Folders that apps are built from: files, class names, a description as JSON, a test image, example projects."""
