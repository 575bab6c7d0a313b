"""Metrics of labelled images for tasks other than one class per image: decisions, values, masks. numpy."""
