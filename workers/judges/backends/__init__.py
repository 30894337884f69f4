"""Sources of judgments: a model on this machine, a server, or a file of recorded judgments."""
