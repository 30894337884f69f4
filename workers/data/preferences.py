"""Stage `preferences`: (prompt, chosen, rejected) rows."""

from __future__ import annotations

from pathlib import Path

from workers.data.configs import PreferencesConfig
from workers.data.dialogue_rows import read_dialogues
from workers.data.dialogues import pair_order, write_pairs
from workers.data.held_out import without_held_out, without_test_prompts


def preferences(
    config: PreferencesConfig, out: Path, *, held_out: Path | None = None, test_sets: Path | None = None
) -> dict[str, float]:
    """Write `preferences.parquet`: two different answers to the same prompt in each row.

    Rows are shuffled by seed and content, and the first `limit` are kept. `subset` is the source's name of it.

    Args:
        config: what to read.
        out: receives the table.
        held_out: a prompts artifact: rows with exactly one of its test prompts are left out first.
        test_sets: a preferences artifact: rows whose prompt occurs in it are left out first, whatever their white
            space (`workers.data.held_out.without_test_prompts`).

    Returns:
        preferences: rows written. skipped_rows: incomplete rows. held_out_rows: rows left out for their prompt.

    Raises:
        ValueError: fewer rows are left than `limit`, or none; and what `read_dialogues(pairs=True)` raises.
    """
    dialogues, skipped = read_dialogues(
        config.source, columns=config.columns, incomplete_rows=config.incomplete_rows, pairs=True
    )
    dialogues, held = without_held_out(dialogues, held_out)
    dialogues, tested = without_test_prompts(dialogues, test_sets)
    if len(dialogues) < (config.limit or 1):
        raise ValueError(
            f"{len(dialogues)} preferences, but {config.limit or 'at least 1'} asked for ({held} rows have a held-out "
            f"test prompt, {tested} a prompt of the test sets): lower `limit`, hold out fewer test prompts, or give "
            "more data"
        )
    rows = sorted(dialogues, key=pair_order(config.seed))[: config.limit]
    write_pairs(rows, [row.subset for row in rows], out)
    return {
        "preferences": float(len(rows)),
        "skipped_rows": float(skipped),
        "held_out_rows": float(held + tested),
    }
