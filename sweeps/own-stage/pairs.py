"""Pairs of answers as numbers: the first stage of this study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer


def features(file: Path, out: Path, *, test_share: float = 0.25, seed: int = 0) -> dict[str, float]:
    """Write `train.npy` and `test.npy`: float32 TF-IDF (pairs, 2, words) of two answers, the chosen one first.

    The pairs of a prompt stay together, and words are learned from train pairs only.

    Raises:
        ValueError: a line of the file is no preference pair, or too few prompts are there to hold some out.
    """
    pairs: dict[str, list[tuple[str, str]]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            prompt, chosen = row["chosen"].rsplit("\n\nAssistant:", 1)
            _, rejected = row["rejected"].rsplit("\n\nAssistant:", 1)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{file}:{number}: expected chosen and rejected dialogues (hh-rlhf format)") from error
        pairs.setdefault(prompt, []).append((chosen, rejected))
    prompts = np.random.default_rng(seed).permutation(sorted(pairs))
    held_out = round(test_share * len(prompts))
    if not 0 < held_out < len(prompts):
        raise ValueError(f"{file}: {len(prompts)} prompts cannot be split with test_share {test_share}")
    test = [pair for prompt in prompts[:held_out] for pair in pairs[prompt]]
    train = [pair for prompt in prompts[held_out:] for pair in pairs[prompt]]
    words = TfidfVectorizer(min_df=2, dtype=np.float32).fit([text for pair in train for text in pair])
    for name, split in (("train", train), ("test", test)):
        flat = words.transform([text for pair in split for text in pair]).toarray()
        np.save(out / f"{name}.npy", flat.reshape(len(split), 2, -1))
    return {"train_pairs": len(train), "test_pairs": len(test), "words": len(words.vocabulary_)}
