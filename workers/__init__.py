"""The stages: one plain function each, independent of Ray, MLflow, sweeps, keys and caching."""
