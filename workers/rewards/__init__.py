"""Scalar models with a value head on a language model: golden rewards, scores, margins, verdicts."""
