"""The results table and what it says."""
