"""The plan of a sweep: its cells, its shared steps and every key, before anything runs."""
