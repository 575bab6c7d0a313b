"""Files, run folders, machine facts, timing, energy, and private API of frameworks."""
