"""The report of a sweep (`sweep report`)."""
