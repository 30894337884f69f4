"""The work itself: one plain function per stage, which knows nothing of Ray, MLflow, sweeps, keys or caching."""
