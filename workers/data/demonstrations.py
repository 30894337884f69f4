"""Stage `demonstrations`: (prompt, response) pairs for supervised fine-tuning."""

from __future__ import annotations

from pathlib import Path

from workers.data.configs import DemonstrationsConfig
from workers.data.dialogue_rows import read_dialogues
from workers.data.held_out import without_held_out
from workers.seeding import shuffle_key
from workers.tables import DEMONSTRATIONS


def demonstrations(config: DemonstrationsConfig, out: Path, *, held_out: Path | None = None) -> dict[str, float]:
    """Write `demonstrations.parquet`; of preference rows the chosen response is the demonstration.

    Rows are shuffled by seed and content, and the first `limit` are kept. `held_out` is a prompts artifact: rows with
    exactly one of its test prompts are left out first.

    Returns:
        demonstrations: rows written. skipped_rows: incomplete rows. held_out_rows: rows left out for their prompt.

    Raises:
        ValueError: fewer rows are left than `limit`, or none; and what `read_dialogues` raises.
    """
    dialogues, skipped = read_dialogues(config.source, columns=config.columns, incomplete_rows=config.incomplete_rows)
    dialogues, removed = without_held_out(dialogues, held_out)
    if len(dialogues) < (config.limit or 1):
        raise ValueError(
            f"{len(dialogues)} demonstrations, but {config.limit or 'at least 1'} asked for ({removed} rows have a "
            "held-out test prompt): lower `limit`, hold out fewer test prompts, or give more data"
        )
    dialogues.sort(key=lambda each: shuffle_key(config.seed, each.prompt, each.response))
    rows = dialogues[: config.limit]
    columns = {
        "prompt": [each.prompt for each in rows],
        "response": [each.response for each in rows],
    }
    DEMONSTRATIONS.write(columns, out)
    return {
        "demonstrations": float(len(rows)),
        "skipped_rows": float(skipped),
        "held_out_rows": float(removed),
    }
