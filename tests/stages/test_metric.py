"""What a number of an entry is that was cut into shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.metric import Metric, over_shards
from workers.reward_models.configs import REWARD_METRICS
from workers.stages import STAGES

REWARDS = {metric.name: metric for metric in REWARD_METRICS}


def metrics(values: list[float]) -> dict[str, float]:
    """The metrics of the rewards of a shard."""
    return dict(zip(REWARDS, (float(len(values)), float(np.mean(values)), float(np.std(values))), strict=True))


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=4))
def test_count_mean_and_deviation_over_shards_are_those_of_all_together(shards: list[list[float]]) -> None:
    found = over_shards(REWARDS, [metrics(each) for each in shards])
    assert found == pytest.approx(metrics([value for each in shards for value in each]), abs=1e-6)


def test_costs_of_shards_add_up() -> None:
    declared = {"judge_cost": Metric("judge_cost", shards="sum")}
    assert over_shards(declared, [{"judge_cost": 0.07}, {"judge_cost": 0.07}]) == {"judge_cost": 0.14}


def test_what_is_undefined_in_a_shard_or_differs_where_it_must_not_is_left_out() -> None:
    declared = {"dimension": Metric("dimension", shards="same"), **REWARDS}
    whole = {"dimension": 4.0, "scored_responses": 2.0, "mean_reward": 1.0, "sd_reward": 0.5}
    assert set(over_shards(declared, [whole, whole])) == set(declared)
    assert "dimension" not in over_shards(declared, [whole, whole | {"dimension": 5.0}])
    without = {name: value for name, value in whole.items() if name != "mean_reward"}
    assert set(over_shards(declared, [whole, without])) == {"dimension", "scored_responses"}


def test_a_mean_over_nothing_is_left_out() -> None:
    nothing = {"scored_responses": 0.0, "mean_reward": 0.0, "sd_reward": 0.0}
    assert over_shards(REWARDS, [nothing, nothing]) == {"scored_responses": 0.0}


def test_losses_and_failures_are_better_lower_accuracies_higher_and_counts_neither() -> None:
    samples: dict[str, dict[str, object]] = {
        "evaluate": {},
        "fit_mlp": {"loss": "bt", "seed": 0},
        "golden": {"train": {}},
        "judge_evaluate": {"sets": {"a": "pairs", "b": "rewardbench"}, "both_orders": True, "prefix": "x_"},
        "judge_parse": {},
        "judge_compare": {},
        "policy_compare": {},
        "perturb": {},
    }
    found = {
        name: metric.better
        for stage, sample in samples.items()
        for name, metric in (STAGES[stage].config.model_validate(sample).declared() or {}).items()
    }
    by_direction = {each: {name for name, better in found.items() if better == each} for each in ("higher", "lower")}
    assert by_direction["lower"] == {
        "train_loss", "validation_loss", "golden_loss", "x_parse_failure_rate", "unparsed_rate",
    }  # fmt: skip
    assert by_direction["higher"] >= {
        "best_of_2", "improvement", "spearman", "quantile", "pairwise_accuracy", "pairwise_accuracy_cross",
        "golden_accuracy", "x_accuracy", "x_a_accuracy", "x_b_overall", "x_both_order_accuracy", "x_consistency",
        "golden_reward", "win_rate", "length_controlled_win_rate",
    }  # fmt: skip
    neither = {name for name, better in found.items() if better is None}
    assert neither == {
        "mean_golden_reward", "epochs", "steps", "x_first_position_share", "x_length_agreement", "verdicts",
        "unread_judgments", "first_position_rate", "accuracy_difference", "difference_low", "difference_high",
        "mcnemar_p", "start_golden_reward", "mean_length", "start_mean_length", "kept_preferences", "flip_rate",
        "bias_removed_rows",
    }  # fmt: skip


def test_each_metric_of_a_stage_that_can_be_cut_into_shards_declares_what_it_is_over_them() -> None:
    cut = {name for name, stage in STAGES.items() if "shards" in stage.config.model_fields and "toy" not in name}
    made = {STAGES[name].output for name in cut}
    # A stage that reads one shard at a time is cut as its source is.
    fed = {
        name
        for name, stage in STAGES.items()
        if any(each.kind in made and not each.many for each in stage.inputs.values()) and "toy" not in name
    }
    assert cut == {"generate", "judge_sample", "world_embeddings", "world_rewards"}
    assert fed == {"embed", "score"}
    samples = {
        "judge_sample": [
            {"form": "json", "seed": 0, "max_new_tokens": 1, "backend": backend}
            for backend in (
                {"engine": "transformers"},
                {"endpoint": "http://127.0.0.1/v1", "model": "m", "price_in": 0, "price_out": 0},
            )
        ],
        "generate": [{"split": "train", "responses": 1}],
        "world_embeddings": [{"split": "train", "prompts": 1, "responses": 1}],
        "world_rewards": [{"split": "train", "prompts": 1, "responses": 1}],
    }
    for name in cut | fed:
        for sample in samples.get(name, [{}]):
            declared = STAGES[name].config.model_validate(sample).declared()
            assert declared
            for metric in declared.values():
                assert metric.shards, (name, metric)
                assert metric.shards not in ("mean", "sd") or metric.weight in declared
                assert metric.shards != "sd" or metric.mean in declared
