"""An attempt: one try at one step, on any machine."""
