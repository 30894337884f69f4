"""Stages that people bring: modules beside a sweep file, and installed ones, found, read, told apart and loaded."""

from __future__ import annotations


class StageError(ValueError):
    """A stage that is not this package's cannot be used; the message names it and the remedy."""
