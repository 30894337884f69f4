"""Pages over the results table and the attempt records; they read tables only."""
