"""The table of all stages of this package; to add one, see `workers/README.md`.

Nothing here imports torch, transformers, trl or lightgbm: a stage names its function by string.
"""

from __future__ import annotations

from collections.abc import Mapping

from workers.data import table as data
from workers.judges import table as judges
from workers.language_models import table as language_models
from workers.reward_models import table as reward_models
from workers.rewards import table as rewards
from workers.stage import Stage, join_tables

STAGES: Mapping[str, Stage] = join_tables(
    data.STAGES, language_models.STAGES, rewards.STAGES, reward_models.STAGES, judges.STAGES
)
