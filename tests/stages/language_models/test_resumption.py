"""Long stages that are stopped go on from their checkpoints, and their results are those of one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_checkpoints import FolderCheckpoints, StoppedError, contents, run_stopped

from workers import tables
from workers.checkpoints import NONE, Checkpoints
from workers.judges.configs import JudgeSampleConfig
from workers.judges.sample import judge_sample
from workers.language_models.configs import DpoConfig, EmbedConfig, GenerateConfig, Lora, SftConfig
from workers.language_models.dpo import dpo
from workers.language_models.embed import embed
from workers.language_models.generate import generate
from workers.language_models.sft import sft
from workers.rewards.configs import GoldenConfig, RewardTraining, ScalarTrainConfig, ScoreConfig
from workers.rewards.golden import golden
from workers.rewards.scalar_train import scalar_train
from workers.rewards.score import score

pytestmark = pytest.mark.train

Run = Callable[[Path, Checkpoints], Any]


def trainings(policy: Path, demonstrations: Path, preferences: Path) -> dict[str, Run]:
    """Trainings of 12 optimizer steps, curves logged every tenth."""
    lora = Lora(r=4, alpha=8, dropout=0.2)
    few = SftConfig(learning_rate=1e-2, epochs=4, batch_size=4, gradient_accumulation=2)
    return {
        "sft": lambda out, kept: sft(few, out, policy=policy, demonstrations=demonstrations, checkpoints=kept),
        "sft with LoRA": lambda out, kept: sft(
            few.model_copy(update={"lora": lora}), out, policy=policy, demonstrations=demonstrations, checkpoints=kept
        ),
        "dpo": lambda out, kept: dpo(
            DpoConfig(learning_rate=1e-3, batch_size=5, sft_weight=0.1),
            out,
            policy=policy,
            preferences=preferences,
            checkpoints=kept,
        ),
        "dpo with LoRA": lambda out, kept: dpo(
            DpoConfig(learning_rate=1e-2, batch_size=5, lora=lora),
            out,
            policy=policy,
            preferences=preferences,
            checkpoints=kept,
        ),
        "scalar_train": lambda out, kept: scalar_train(
            ScalarTrainConfig(learning_rate=1e-3, batch_size=5, lora=lora),
            out,
            policy=policy,
            preferences=preferences,
            checkpoints=kept,
        ),
        "golden": lambda out, kept: golden(
            GoldenConfig(train=RewardTraining(learning_rate=1e-3, batch_size=4)),
            out,
            policy=policy,
            preferences=preferences,
            checkpoints=kept,
        ),
    }


NAMES = ("sft", "sft with LoRA", "dpo", "dpo with LoRA", "scalar_train", "golden")


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_was_stopped_twice_gives_the_model_curve_and_metrics_of_one_that_was_not(
    tiny_policy: Path, tiny_demonstrations: Path, tiny_preferences: Path, tmp_path: Path, name: str
) -> None:
    run = trainings(tiny_policy, tiny_demonstrations, tiny_preferences)[name]
    whole = tmp_path / "whole"
    whole.mkdir()
    metrics = run(whole, NONE)
    for number, stops in enumerate([([3], 5), ([2, 3], 4)]):
        (tmp_path / f"out{number}").mkdir()
        due, stop = stops
        with pytest.raises(StoppedError):
            run(tmp_path / f"out{number}", FolderCheckpoints(tmp_path / "kept", due, stop))
        (kept,) = (tmp_path / "kept").iterdir()
        # The first is replaced, and both begin where the one before was.
        assert kept.name == f"step{[3, 6][number]:09d}"
    (tmp_path / "last").mkdir()
    again = run(tmp_path / "last", FolderCheckpoints(tmp_path / "kept"))
    assert again == metrics
    assert contents(tmp_path / "last") == contents(whole)
    losses = [row for row in tables.HISTORY.read(whole).to_pylist() if row["metric"] == "loss"]
    assert [row["step"] for row in losses] == [10], "so that sums of unlogged steps were put back, too"


def test_no_checkpoint_is_made_after_the_last_step(
    tiny_policy: Path, tiny_demonstrations: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    run = trainings(tiny_policy, tiny_demonstrations, tiny_preferences)["sft"]
    kept = FolderCheckpoints(tmp_path / "kept", due=range(100))
    (tmp_path / "out").mkdir()
    run(tmp_path / "out", kept)
    assert [path.name for path in kept.folder.iterdir()] == ["step000000011"]


def test_a_checkpoint_of_other_libraries_is_deleted_and_not_used(
    tiny_policy: Path,
    tiny_demonstrations: Path,
    tiny_preferences: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = trainings(tiny_policy, tiny_demonstrations, tiny_preferences)["sft"]
    whole = tmp_path / "whole"
    whole.mkdir()
    run(whole, NONE)
    (tmp_path / "out").mkdir()
    with pytest.raises(StoppedError):
        run(tmp_path / "out", FolderCheckpoints(tmp_path / "kept", [4], 6))
    record = tmp_path / "kept" / "step000000004" / "resumption.json"
    content = json.loads(record.read_text())
    content["made_with"]["transformers"] = "4.0.0"
    record.write_text(json.dumps(content))
    (tmp_path / "again").mkdir()
    run(tmp_path / "again", FolderCheckpoints(tmp_path / "kept"))
    assert "is deleted: other libraries made it" in capfd.readouterr().out
    assert not list((tmp_path / "kept").iterdir())
    assert contents(tmp_path / "again") == contents(whole)


def shards(policy: Path, prompts: Path, golden_model: Path, preferences: Path, responses: Path) -> dict[str, Run]:
    """Stages whose work is many rows, in batches of two; windows of them are of one batch."""
    backend = {"engine": "transformers", "dtype": "float32"}
    judging = JudgeSampleConfig.model_validate(
        {"backend": backend, "samples": 2, "hints": True, "max_new_tokens": 6, "max_request_tokens": 240}
    )
    return {
        "generate": lambda out, kept: generate(
            GenerateConfig(split="train", responses=3, max_new_tokens=8),
            out,
            policy=policy,
            prompts=prompts,
            batch_size=2,
            checkpoints=kept,
        ),
        "score": lambda out, kept: score(
            ScoreConfig(), out, golden=golden_model, responses=responses, batch_size=2, checkpoints=kept
        ),
        "embed": lambda out, kept: embed(
            EmbedConfig(), out, policy=policy, responses=responses, batch_size=2, checkpoints=kept
        ),
        "judge_sample": lambda out, kept: judge_sample(
            judging, out, judge=policy, preferences=preferences, batch_size=2, checkpoints=kept
        ),
    }


@pytest.mark.parametrize("name", ["generate", "score", "embed", "judge_sample"])
def test_rows_that_an_earlier_attempt_has_done_are_not_done_again(
    tiny_policy: Path,
    tiny_prompts: Path,
    tiny_golden: Path,
    tiny_preferences: Path,
    tiny_responses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr("workers.language_models.batches.WINDOW", 1)
    few = tmp_path / "few"
    few.mkdir()
    tables.PREFERENCES.write(tables.PREFERENCES.read(tiny_preferences).slice(0, 4).to_pydict(), few)
    run = shards(tiny_policy, tiny_prompts, tiny_golden, few, tiny_responses)[name]
    whole = tmp_path / "whole"
    whole.mkdir()
    counted = FolderCheckpoints(tmp_path / "none")
    metrics = run(whole, counted)
    due, stop = [1, 2], 3
    again = run_stopped(run, tmp_path / "stopped", due, stop)
    assert contents(again) == contents(whole)
    rest = FolderCheckpoints(tmp_path / "stopped" / "kept")
    assert len(rest.found()) == 2
    (tmp_path / "third").mkdir()
    assert run(tmp_path / "third", rest) == metrics
    # Two of its parts were kept.
    assert rest.asked == counted.asked - 2


def test_rows_after_a_gap_are_done_again(tiny_policy: Path, tiny_responses: Path, tmp_path: Path) -> None:
    config = EmbedConfig()
    kept = FolderCheckpoints(tmp_path / "kept")
    (tmp_path / "whole").mkdir()
    embed(config, tmp_path / "whole", policy=tiny_policy, responses=tiny_responses)
    vectors = np.load(tmp_path / "whole" / "embeddings.npy")
    part = vectors.reshape(-1, vectors.shape[-1])[6:9]

    def write(folder: Path) -> None:
        np.save(folder / "rows.npy", part + 1)
        np.save(folder / "start.npy", np.array(6))

    kept.keep("rows000000000006", write)
    (tmp_path / "out").mkdir()
    embed(config, tmp_path / "out", policy=tiny_policy, responses=tiny_responses, checkpoints=kept)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
