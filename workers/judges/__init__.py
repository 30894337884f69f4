"""Generative judges: their judgments, data to train them on, their evaluation, and their use as annotators."""
