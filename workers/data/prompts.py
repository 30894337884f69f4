"""Stage `prompts`: distinct prompts of a data set, split into train and test."""

from __future__ import annotations

from pathlib import Path

from workers.config import Data, LocalPath, NamedModel
from workers.data.configs import PromptsConfig
from workers.data.dialogue_rows import read_dialogues
from workers.seeding import shuffle_key
from workers.tables import PROMPTS


def prompts(config: PromptsConfig, out: Path) -> dict[str, float]:
    """Write `prompts.parquet`: distinct prompts, train before test, `prompt_id` 0.. over the whole table.

    The order is a shuffle that depends on nothing but the seed and each prompt's text. Test prompts are the first
    `test` of it, train prompts the next `train`; with `test_source` test prompts are drawn from there, and never occur
    among the train prompts either. Of two transcripts that part early (hh-rlhf), the prompt of the chosen one is taken.

    Returns:
        train_prompts, test_prompts: rows of each split. skipped_rows: incomplete rows, both sources together.
        long_prompts: distinct prompts over `max_tokens`, the "Human:" and "Assistant:" markers counted.

    Raises:
        ValueError: fewer prompts than `train` or `test`, or none for a split; and what `read_dialogues` raises.
        OSError: the tokenizer could not be loaded.
    """
    found, skipped = _distinct(config, config.source)
    if config.test_source is None:
        found, long = _short_enough(found, config)
        test, rest = found[: config.test], found[config.test :]
    else:
        found_test, skipped_test = _distinct(config, config.test_source)
        skipped += skipped_test
        kept, long = _short_enough(list(dict.fromkeys(found_test + found)), config)
        short = set(kept)
        test = [prompt for prompt in found_test if prompt in short][: config.test]
        for_train = short.difference(test)
        rest = [prompt for prompt in found if prompt in for_train]
    train = rest[: config.train]
    _enough("test", len(test), config.test, long)
    _enough("train", len(train), config.train, long)
    columns = {
        "prompt_id": range(len(train) + len(test)),
        "split": ["train"] * len(train) + ["test"] * len(test),
        "prompt": train + test,
    }
    PROMPTS.write(columns, out)
    return {
        "train_prompts": float(len(train)),
        "test_prompts": float(len(test)),
        "skipped_rows": float(skipped),
        "long_prompts": float(long),
    }


def _distinct(config: PromptsConfig, source: Data) -> tuple[list[str], int]:
    dialogues, skipped = read_dialogues(source, columns=config.columns, incomplete_rows=config.incomplete_rows)
    return sorted({each.prompt for each in dialogues}, key=lambda prompt: shuffle_key(config.seed, prompt)), skipped


def _short_enough(candidates: list[str], config: PromptsConfig) -> tuple[list[str], int]:
    if config.max_tokens is None:
        return candidates, 0
    lengths = _token_counts(candidates, config.tokenizer)
    kept = [prompt for prompt, tokens in zip(candidates, lengths, strict=True) if tokens <= config.max_tokens]
    return kept, len(candidates) - len(kept)


def _token_counts(texts: list[str], named: NamedModel | None) -> list[int]:
    if named is None:
        return [len(text.split()) for text in texts]
    from transformers import AutoTokenizer

    name, revision = (named.path, None) if isinstance(named, LocalPath) else (named.hub, named.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise OSError(
            f"tokenizer {name} could not be loaded: {error}\nWithout internet on this machine: give a local folder, "
            "tokenizer: {path: …}, set HF_HOME to a filled cache, or leave tokenizer out to count words."
        ) from error
    counts: list[int] = []
    # In parts: a tokenizer keeps offsets and strings of all that it is given at once, gigabytes for 40,000 prompts.
    for start in range(0, len(texts), 1000):
        part = tokenizer(texts[start : start + 1000], add_special_tokens=False, verbose=False)["input_ids"]
        counts += [len(tokens) for tokens in part]
    return counts


def _enough(split: str, found: int, limit: int | None, long: int) -> None:
    if found < (limit or 1):
        raise ValueError(
            f"{found} {split} prompts, but {limit or 'at least 1'} asked for (distinct prompts; {long} over max_tokens "
            f"were dropped, test prompts are taken first): lower `{split}` or give more data"
        )
