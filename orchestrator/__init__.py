"""From one YAML to a plan, to Ray tasks, to artifacts, to a results table and MLflow runs."""
