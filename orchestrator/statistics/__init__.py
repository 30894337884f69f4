"""Statistics of arrays: what is missing in them, what is random in them, and what may be said of their means."""
