"""The stages of data."""

from __future__ import annotations

from collections.abc import Mapping

from workers.data import configs
from workers.stage import Input, Stage

STAGES: Mapping[str, Stage] = {
    "prompts": Stage("workers.data.prompts:prompts", 2, configs.PromptsConfig, "prompts"),
    "demonstrations": Stage(
        "workers.data.demonstrations:demonstrations",
        2,
        configs.DemonstrationsConfig,
        "demonstrations",
        {"held_out": Input("prompts", optional=True)},
    ),
    "preferences": Stage(
        "workers.data.preferences:preferences",
        2,
        configs.PreferencesConfig,
        "preferences",
        {"held_out": Input("prompts", optional=True), "test_sets": Input("preferences", optional=True)},
    ),
    "test_sets": Stage("workers.data.benchmark_sets:test_sets", 1, configs.TestSetsConfig, "preferences"),
    "perturb": Stage(
        "workers.data.perturb:perturb",
        1,
        configs.PerturbConfig,
        "preferences",
        {"preferences": Input("preferences"), "margins": Input("margins", optional=True)},
    ),
}
