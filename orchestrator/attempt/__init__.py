"""One try at one step, on whatever machine."""
