"""The stages of scalar reward models."""

from __future__ import annotations

from collections.abc import Mapping

from workers.rewards import configs
from workers.stage import Input, Stage

STAGES: Mapping[str, Stage] = {
    "margins": Stage(
        "workers.rewards.margins:margins",
        2,
        configs.MarginsConfig,
        "margins",
        {"golden": Input("golden"), "preferences": Input("preferences")},
        loads=("golden", "dtype"),
        batches=True,
        checkpoints=True,
    ),
    "golden": Stage(
        "workers.rewards.golden:golden",
        1,
        configs.GoldenConfig,
        "golden",
        {"preferences": Input("preferences", optional=True), "policy": Input("model", optional=True)},
        history=True,
        checkpoints=True,
    ),
    "score": Stage(
        "workers.rewards.score:score",
        3,
        configs.ScoreConfig,
        "scores",
        {"golden": Input("golden"), "responses": Input("responses")},
        loads=("golden", "dtype"),
        batches=True,
        checkpoints=True,
    ),
    "scalar_train": Stage(
        "workers.rewards.scalar_train:scalar_train",
        1,
        configs.ScalarTrainConfig,
        "golden",
        {"policy": Input("model"), "preferences": Input("preferences")},
        history=True,
        checkpoints=True,
    ),
    "scalar_verdicts": Stage(
        "workers.rewards.scalar_verdicts:scalar_verdicts",
        2,
        configs.ScalarVerdictsConfig,
        "verdicts",
        {"scalar": Input("golden"), "preferences": Input("preferences")},
        loads=("scalar", "dtype"),
        batches=True,
        checkpoints=True,
    ),
}
