"""Lists of the images below folders, and of what was left out of them. Pure Python."""
