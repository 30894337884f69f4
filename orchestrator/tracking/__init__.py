"""Shows a sweep in MLflow, each run once. The only room that imports mlflow."""
