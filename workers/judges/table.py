"""The stages of generative judges."""

from __future__ import annotations

from collections.abc import Mapping

from workers.judges import configs
from workers.stage import Input, Stage

STAGES: Mapping[str, Stage] = {
    "judge_sample": Stage(
        "workers.judges.sample:judge_sample",
        2,
        configs.JudgeSampleConfig,
        "judgments",
        {"preferences": Input("preferences"), "judge": Input("model", optional=True)},
        loads=("judge", "backend"),
        batches=True,
        checkpoints=True,
    ),
    "judge_parse": Stage(
        "workers.judges.parse:judge_parse",
        2,
        configs.JudgeParseConfig,
        "verdicts",
        {"judgments": Input("judgments", many=True)},
    ),
    "judge_pairs": Stage(
        "workers.judges.contrastive_pairs:judge_pairs",
        1,
        configs.JudgePairsConfig,
        "preferences",
        {"verdicts": Input("verdicts"), "preferences": Input("preferences")},
    ),
    "judge_demonstrations": Stage(
        "workers.judges.demonstrations:judge_demonstrations",
        1,
        configs.JudgeDemonstrationsConfig,
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
        configs.HardCasesConfig,
        "preferences",
        {"verdicts": Input("verdicts"), "preferences": Input("preferences")},
    ),
    "surviving_rows": Stage(
        "workers.judges.surviving_rows:surviving_rows",
        1,
        configs.SurvivingRowsConfig,
        "preferences",
        {"preferences": Input("preferences"), "verdicts": Input("verdicts"), "pairs": Input("preferences")},
    ),
    "judge_evaluate": Stage(
        "workers.judges.evaluate:judge_evaluate",
        1,
        configs.JudgeEvaluateConfig,
        "judge_evaluation",
        {"verdicts": Input("verdicts"), "test_sets": Input("preferences")},
    ),
    "judge_compare": Stage(
        "workers.judges.compare:judge_compare",
        1,
        configs.JudgeCompareConfig,
        "judge_comparison",
        {"first": Input("judge_evaluation"), "second": Input("judge_evaluation")},
    ),
    "response_pairs": Stage(
        "workers.judges.pairs_to_judge:response_pairs",
        1,
        configs.ResponsePairsConfig,
        "preferences",
        {"responses": Input("responses", many=True)},
    ),
    "relabel": Stage(
        "workers.judges.relabel:relabel",
        1,
        configs.RelabelConfig,
        "preferences",
        {"preferences": Input("preferences"), "verdicts": Input("verdicts")},
    ),
    "policy_compare": Stage(
        "workers.judges.policy_compare:policy_compare",
        2,
        configs.PolicyCompareConfig,
        "policy_comparison",
        {
            "responses": Input("responses", many=True),
            "scores": Input("scores", many=True),
            "start_responses": Input("responses", many=True),
            "start_scores": Input("scores", many=True),
        },
    ),
    "annotation_pairs": Stage(
        "workers.judges.pairs_to_judge:annotation_pairs",
        1,
        configs.AnnotationPairsConfig,
        "preferences",
        {"annotations": Input("annotations"), "responses": Input("responses", many=True)},
    ),
    "annotate_by_judge": Stage(
        "workers.judges.annotate_by_judge:annotate_by_judge",
        1,
        configs.AnnotateByJudgeConfig,
        "annotations",
        {
            "annotations": Input("annotations"),
            "responses": Input("responses", many=True),
            "verdicts": Input("verdicts"),
        },
    ),
}
