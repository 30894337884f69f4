"""The stages of the reward ablation."""

from __future__ import annotations

from collections.abc import Mapping

from workers.reward_models import configs
from workers.stage import Input, Stage

STAGES: Mapping[str, Stage] = {
    "published_embeddings": Stage(
        "workers.reward_models.published:published_embeddings", 1, configs.PublishedEmbeddingsConfig, "embeddings"
    ),
    "published_rewards": Stage(
        "workers.reward_models.published:published_rewards", 2, configs.PublishedRewardsConfig, "scores"
    ),
    "world_embeddings": Stage(
        "workers.reward_models.world:world_embeddings", 1, configs.WorldEmbeddingsConfig, "embeddings"
    ),
    "world_rewards": Stage("workers.reward_models.world:world_rewards", 2, configs.WorldRewardsConfig, "scores"),
    "annotate": Stage(
        "workers.reward_models.annotate:annotate",
        1,
        configs.AnnotateConfig,
        "annotations",
        {"scores": Input("scores", many=True), "embeddings": Input("embeddings", optional=True, many=True)},
    ),
    "fit_mlp": Stage(
        "workers.reward_models.fit_mlp:fit_mlp",
        1,
        configs.FitMlpConfig,
        "reward_model",
        {"annotations": Input("annotations"), "embeddings": Input("embeddings", many=True)},
        loads=("embeddings", "precision"),
        together="workers.reward_models.fit_mlp:fit_mlps",
    ),
    "fit_lightgbm": Stage(
        "workers.reward_models.fit_lightgbm:fit_lightgbm",
        2,
        configs.FitLightgbmConfig,
        "reward_model",
        {"annotations": Input("annotations"), "embeddings": Input("embeddings", many=True)},
        loads=("embeddings",),
        together="workers.reward_models.fit_lightgbm:fit_lightgbms",
    ),
    "fit_linear": Stage(
        "workers.reward_models.fit_linear:fit_linear",
        1,
        configs.FitLinearConfig,
        "reward_model",
        {"annotations": Input("annotations"), "embeddings": Input("embeddings", many=True)},
    ),
    "evaluate": Stage(
        "workers.reward_models.evaluate:evaluate",
        2,
        configs.EvaluateConfig,
        "evaluation",
        {
            "reward_model": Input("reward_model"),
            "embeddings": Input("embeddings", many=True),
            "scores": Input("scores", many=True),
        },
        loads=("embeddings", "precision"),
        together="workers.reward_models.evaluate:evaluate_all",
    ),
}
