"""Answers for people and machines: what would run and why, where a sweep stands, how long the rest takes."""
