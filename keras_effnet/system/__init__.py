"""Files, run folders, machine, timing, energy: what every other wing stands on."""
