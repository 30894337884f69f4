"""The work itself: one plain function per stage. Nothing here knows Ray, MLflow, sweeps, keys or caching."""
