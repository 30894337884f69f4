"""The rewards that a scalar reward model gives to the answers of a table, computed window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workers import precision
from workers.checkpoints import NONE, Checkpoints, keep_rows, restore_rows
from workers.language_models import batches, models
from workers.language_models.batches import Passes
from workers.language_models.transcripts import transcript_ids
from workers.progress import Progress
from workers.rewards.configs import ScoringConfig
from workers.rewards.scalar_model import load_scalar_model
from workers.tables import PREFERENCES


def score_answers(
    golden: Path,
    table: pa.Table,
    columns: Sequence[Sequence[str]],
    config: ScoringConfig,
    batch_size: int,
    *,
    name: Callable[[int], str],
    unit: str = "rows",
    edit: Callable[[str], str] = str,
    checkpoints: Checkpoints = NONE,
) -> NDArray[np.float32]:
    """Return the rewards (columns, rows) of answers, each read after the prompt of its row.

    The texts of a window, `WINDOW` batches of rows, are tokenised and sorted by length together, which saves padding;
    no other texts are in memory. Texts longer than `max_tokens`, or than the model can read, lose their beginning.

    Args:
        golden: artifact of a sequence classifier with one label.
        table: has a column `prompt` and the columns of answers.
        columns: names of the columns of answers. Those named together share batches, which shows in the last bits of
            their rewards.
        config: how to read the texts.
        batch_size: texts of `max_tokens` per forward pass, more if they are shorter, fewer where memory runs out.
        name: returns the name of a row in error messages.
        unit: name of the rows in lines of progress.
        edit: returns the part of an answer that is read.
        checkpoints: those of the step.

    Raises:
        ValueError: the model is no one-label classifier, a reward is not finite, tf32 where there is none, or `chat`
            without a chat template.
        FileNotFoundError: the model cannot be read.
    """
    precision.require(config.dtype)
    scalar = load_scalar_model(golden, config.dtype)
    limit = models.token_limit(scalar.model, scalar.tokenizer, config.max_tokens)
    flat = [column for together in columns for column in together]
    rewards = np.empty((len(flat), table.num_rows), dtype=np.float32)
    passes, at_once = Passes(batch_size * limit, config.dtype), batch_size * batches.WINDOW
    done = kept = restore_rows(checkpoints, lambda _: rewards.T)
    progress = Progress(unit, table.num_rows, done)
    for start in range(done, table.num_rows, at_once):
        part = table.slice(start, at_once)
        prompts = part["prompt"].to_pylist()
        found = []
        for together in columns:
            answers = [edit(answer) for column in together for answer in part[column].to_pylist()]
            ids = transcript_ids(scalar.tokenizer, prompts * len(together), answers, chat=config.chat, max_tokens=limit)
            found.append(scalar.rewards(ids, prompts * len(together), passes))
        window = np.concatenate(found).reshape(len(flat), len(prompts))
        if not np.isfinite(window).all():
            row, column = np.argwhere(~np.isfinite(window.T))[0]
            which = f" of the {flat[column]} answer" if len(flat) > 1 else ""
            raise ValueError(f"{name(start + int(row))}: the reward{which} is not finite (dtype {config.dtype})")
        done = start + len(prompts)
        rewards[:, start:done] = window
        progress.show(done)
        if done < table.num_rows and checkpoints.due():
            kept = keep_rows(checkpoints, rewards.T, kept, done)
    return rewards


def score_pairs(
    golden: Path,
    preferences: Path,
    columns: Sequence[Sequence[str]],
    config: ScoringConfig,
    batch_size: int,
    checkpoints: Checkpoints,
) -> tuple[pa.Table, NDArray[np.float32]]:
    """Return the rows of a `preferences` artifact, and the rewards (2, rows) of their chosen and rejected answers.

    Args:
        golden: artifact of a sequence classifier with one label.
        preferences: artifact of the rows.
        columns: "chosen" and "rejected" in this order, as `score_answers` has it.
        config: how to read the texts.
        batch_size: texts of `max_tokens` per forward pass, more if they are shorter, fewer where memory runs out.
        checkpoints: those of the step.

    Raises:
        ValueError: there are no rows; and as `score_answers`.
        FileNotFoundError: the model cannot be read.
    """
    path = PREFERENCES.path(preferences)
    table = PREFERENCES.read(preferences)
    if table.num_rows == 0:
        raise ValueError(f"{path}: no preferences")
    return table, score_answers(
        golden,
        table,
        columns,
        config,
        batch_size,
        name=lambda row: f"{path}: row {row + 1}",
        checkpoints=checkpoints,
    )
