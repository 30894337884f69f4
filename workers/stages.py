"""The table of stages: the one seam between the orchestrator and the work.

A stage is named by string, so that planning never imports torch, transformers, trl or lightgbm. To add a stage, see
`workers/README.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from workers import configs
from workers.judges import configs as judge_configs


@dataclass(frozen=True)
class Input:
    """An input of a stage: the kind of artifact it reads."""

    kind: str
    optional: bool = False
    many: bool = False
    """Reads all shards of its source at once, in order. Otherwise a stage fed by shards is run once per shard."""


@dataclass(frozen=True)
class Stage:
    """A kind of work.

    `function` is "module:name" of `def name(config, out, *, <input>: Path | list[Path] | None) -> dict[str, float]`:
    it writes files into the folder `out` and returns exactly the metrics that `config.metrics()` declares, `Undefined`
    in the place of one that is nullable and has no value.
    """

    function: str
    version: int
    """Raised whenever the meaning of the output changes; part of the key."""
    config: type[configs.Config]
    output: str
    """The kind of artifact it writes; see `workers/README.md` for the files of each kind."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    loads: tuple[str, ...] = ()
    """Fields of the config and inputs that name a model which it loads (by `workers.model_cache`). Steps that agree
    in them are run one after another by a process that keeps it."""
    history: bool = False
    """Writes its training curve, `history.parquet` (`tables.HISTORY`), where it trains at all."""
    together: str = ""
    """"module:name" of a function that does several steps which agree in `loads` at less than their cost:
    `def name(calls: Sequence[Call]) -> Iterator[dict[str, float] | None]`. It does what they share and returns an
    iterator that does the rest of each in turn, like `function`. None stands for a step that failed: it is then tried
    by itself, and so are all that are left if the function or the iterator raises. Results do not depend on who is
    in the company."""


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
    "margins": Stage(
        "workers.rewards.margins:margins",
        2,
        configs.MarginsConfig,
        "margins",
        {"golden": Input("golden"), "preferences": Input("preferences")},
        loads=("golden", "dtype"),
    ),
    "perturb": Stage(
        "workers.data.perturb:perturb",
        1,
        configs.PerturbConfig,
        "preferences",
        {"preferences": Input("preferences"), "margins": Input("margins", optional=True)},
    ),
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
    ),
    "dpo": Stage(
        "workers.language_models.dpo:dpo",
        1,
        configs.DpoConfig,
        "model",
        {"policy": Input("model"), "preferences": Input("preferences")},
        history=True,
    ),
    "generate": Stage(
        "workers.language_models.generate:generate",
        1,
        configs.GenerateConfig,
        "responses",
        {"policy": Input("model"), "prompts": Input("prompts")},
        loads=("policy", "dtype", "engine"),
    ),
    "golden": Stage(
        "workers.rewards.golden:golden",
        1,
        configs.GoldenConfig,
        "golden",
        {"preferences": Input("preferences", optional=True), "policy": Input("model", optional=True)},
        history=True,
    ),
    "score": Stage(
        "workers.rewards.score:score",
        3,
        configs.ScoreConfig,
        "scores",
        {"golden": Input("golden"), "responses": Input("responses")},
        loads=("golden", "dtype"),
    ),
    "embed": Stage(
        "workers.language_models.embed:embed",
        1,
        configs.EmbedConfig,
        "embeddings",
        {"responses": Input("responses"), "policy": Input("model", optional=True)},
        loads=("model", "policy"),
    ),
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
        1,
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
    "judge_sample": Stage(
        "workers.judges.sample:judge_sample",
        2,
        judge_configs.JudgeSampleConfig,
        "judgments",
        {"preferences": Input("preferences"), "judge": Input("model", optional=True)},
        loads=("judge", "backend"),
    ),
    "judge_parse": Stage(
        "workers.judges.parse:judge_parse",
        2,
        judge_configs.JudgeParseConfig,
        "verdicts",
        {"judgments": Input("judgments", many=True)},
    ),
    "judge_pairs": Stage(
        "workers.judges.contrastive_pairs:judge_pairs",
        1,
        judge_configs.JudgePairsConfig,
        "preferences",
        {"verdicts": Input("verdicts"), "preferences": Input("preferences")},
    ),
    "judge_demonstrations": Stage(
        "workers.judges.demonstrations:judge_demonstrations",
        1,
        judge_configs.JudgeDemonstrationsConfig,
        "demonstrations",
        {
            "verdicts": Input("verdicts"),
            "preferences": Input("preferences"),
            "general": Input("demonstrations", optional=True),
        },
    ),
    "hard_cases": Stage(
        "workers.judges.hard_cases:hard_cases",
        1,
        judge_configs.HardCasesConfig,
        "preferences",
        {"verdicts": Input("verdicts"), "preferences": Input("preferences")},
    ),
    "surviving_rows": Stage(
        "workers.judges.surviving_rows:surviving_rows",
        1,
        judge_configs.SurvivingRowsConfig,
        "preferences",
        {"preferences": Input("preferences"), "verdicts": Input("verdicts"), "pairs": Input("preferences")},
    ),
    "scalar_train": Stage(
        "workers.rewards.scalar_train:scalar_train",
        1,
        judge_configs.ScalarTrainConfig,
        "golden",
        {"policy": Input("model"), "preferences": Input("preferences")},
        history=True,
    ),
    "scalar_verdicts": Stage(
        "workers.rewards.scalar_verdicts:scalar_verdicts",
        2,
        judge_configs.ScalarVerdictsConfig,
        "verdicts",
        {"scalar": Input("golden"), "preferences": Input("preferences")},
    ),
    "judge_evaluate": Stage(
        "workers.judges.evaluate:judge_evaluate",
        1,
        judge_configs.JudgeEvaluateConfig,
        "judge_evaluation",
        {"verdicts": Input("verdicts"), "test_sets": Input("preferences")},
    ),
    "judge_compare": Stage(
        "workers.judges.compare:judge_compare",
        1,
        judge_configs.JudgeCompareConfig,
        "judge_comparison",
        {"first": Input("judge_evaluation"), "second": Input("judge_evaluation")},
    ),
    "response_pairs": Stage(
        "workers.judges.response_pairs:response_pairs",
        1,
        judge_configs.ResponsePairsConfig,
        "preferences",
        {"responses": Input("responses", many=True)},
    ),
    "relabel": Stage(
        "workers.judges.relabel:relabel",
        1,
        judge_configs.RelabelConfig,
        "preferences",
        {"preferences": Input("preferences"), "verdicts": Input("verdicts")},
    ),
    "policy_compare": Stage(
        "workers.judges.policy_compare:policy_compare",
        1,
        judge_configs.PolicyCompareConfig,
        "policy_comparison",
        {
            "responses": Input("responses", many=True),
            "scores": Input("scores", many=True),
            "start_responses": Input("responses", many=True),
            "start_scores": Input("scores", many=True),
        },
    ),
    "annotation_pairs": Stage(
        "workers.judges.annotation_pairs:annotation_pairs",
        1,
        judge_configs.AnnotationPairsConfig,
        "preferences",
        {"annotations": Input("annotations"), "responses": Input("responses", many=True)},
    ),
    "annotate_by_judge": Stage(
        "workers.judges.annotate_by_judge:annotate_by_judge",
        1,
        judge_configs.AnnotateByJudgeConfig,
        "annotations",
        {
            "annotations": Input("annotations"),
            "responses": Input("responses", many=True),
            "verdicts": Input("verdicts"),
        },
    ),
}
