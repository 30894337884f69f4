"""An attempt: one try at one step, on any machine."""

from orchestrator.namesakes import hidden

# On a worker of Ray nobody has looked before. What is raised here is the error of the step.
if _message := hidden("workers"):
    raise ImportError(_message)
