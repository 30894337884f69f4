"""Prompts, demonstrations and preferences, from files, hubs and test sets."""
