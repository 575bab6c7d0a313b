"""Network head, loss, metrics and evaluation of each task."""
