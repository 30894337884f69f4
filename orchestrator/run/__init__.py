"""The plan, done: the state of every step, the one loop, and where steps run."""
