"""The stages of language models."""

from __future__ import annotations

from collections.abc import Mapping

from workers.language_models import configs
from workers.stage import Input, Stage

STAGES: Mapping[str, Stage] = {
    "policy": Stage(
        "workers.language_models.policy:policy",
        1,
        configs.PolicyConfig,
        "model",
        {"demonstrations": Input("demonstrations", optional=True)},
    ),
    "sft": Stage(
        "workers.language_models.sft:sft",
        1,
        configs.SftConfig,
        "model",
        {"policy": Input("model"), "demonstrations": Input("demonstrations")},
        history=True,
        checkpoints=True,
    ),
    "dpo": Stage(
        "workers.language_models.dpo:dpo",
        1,
        configs.DpoConfig,
        "model",
        {"policy": Input("model"), "preferences": Input("preferences")},
        history=True,
        checkpoints=True,
    ),
    "generate": Stage(
        "workers.language_models.generate:generate",
        1,
        configs.GenerateConfig,
        "responses",
        {"policy": Input("model"), "prompts": Input("prompts")},
        loads=("policy", "dtype", "engine"),
        batches=True,
        checkpoints=True,
    ),
    "embed": Stage(
        "workers.language_models.embed:embed",
        1,
        configs.EmbedConfig,
        "embeddings",
        {"responses": Input("responses"), "policy": Input("model", optional=True)},
        loads=("model", "policy"),
        batches=True,
        checkpoints=True,
    ),
}
