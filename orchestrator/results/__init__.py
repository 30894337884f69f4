"""The results table, and what is computed from it."""
