"""MLflow is told here what the outbox holds, never twice, and nowhere else is mlflow imported."""
