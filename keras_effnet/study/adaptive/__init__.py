"""What a study decides from its own results: further seeds, and the learning rate of each network."""
