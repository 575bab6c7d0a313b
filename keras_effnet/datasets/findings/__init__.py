"""What a check of a dataset looks for, and what it found."""
