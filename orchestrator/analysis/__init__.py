"""What may be said of a results table: means, contrasts, and the claims that a sweep declares."""
