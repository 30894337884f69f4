"""Policies: made, fine-tuned, sampled from, and used to embed text."""
