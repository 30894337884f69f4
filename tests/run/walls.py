"""Boards of drivers without Ray."""

from __future__ import annotations


class Wall:
    """A board in this process."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def put(self, driver: str, text: str) -> None:
        self.notes[driver] = text

    def remove(self, driver: str) -> None:
        self.notes.pop(driver, None)

    def read(self) -> dict[str, str]:
        return dict(self.notes)
