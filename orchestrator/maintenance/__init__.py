"""What may be deleted, what is still the same, what a new version of a stage may take over."""
