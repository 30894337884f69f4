"""What a sweep means: its cells, its shared steps and every key, before anything runs."""
