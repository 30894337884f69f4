"""The run of a plan: the state of every step, the one loop, and the executors."""
