"""Prompts held out for tests, which must not occur in training data."""

from __future__ import annotations

from pathlib import Path

from workers.data.dialogues import Dialogue
from workers.tables import PREFERENCES, PROMPTS


def without_held_out(dialogues: list[Dialogue], held_out: Path | None) -> tuple[list[Dialogue], int]:
    """Remove dialogues with a test prompt of the prompts artifact `held_out`, and count them."""
    if held_out is None:
        return dialogues, 0
    table = PROMPTS.read(held_out)
    splits, prompts = table.column("split").to_pylist(), table.column("prompt").to_pylist()
    test = {prompt for split, prompt in zip(splits, prompts, strict=True) if split == "test"}
    kept = [dialogue for dialogue in dialogues if dialogue.prompt not in test]
    return kept, len(dialogues) - len(kept)


def without_test_prompts(dialogues: list[Dialogue], test_sets: Path | None) -> tuple[list[Dialogue], int]:
    """Remove dialogues whose prompt occurs in the preferences artifact `test_sets`, and count them.

    Prompts are the same if they are equal after every run of white space has been made one space: copies
    of a question in two data sets often differ in line ends. The whole prompt counts, with all its turns.
    """
    if test_sets is None:
        return dialogues, 0
    table = PREFERENCES.read(test_sets)
    test = {_one_spaced(prompt) for prompt in table.column("prompt").to_pylist()}
    kept = [dialogue for dialogue in dialogues if _one_spaced(dialogue.prompt) not in test]
    return kept, len(dialogues) - len(kept)


def _one_spaced(text: str) -> str:
    return " ".join(text.split())
