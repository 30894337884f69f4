"""Generative judges: asked, read, trained on, evaluated, and used as annotators."""
