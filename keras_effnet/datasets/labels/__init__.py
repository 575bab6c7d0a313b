"""Labels of every kind of task: classes, flags, values and masks."""
