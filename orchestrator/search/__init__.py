"""Searches: studies whose samplers choose the next trials, and what is known of these."""
