"""One try at one step, on any machine."""
