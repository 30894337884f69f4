"""A judge in the place of the simulated annotator: the same pairs, its verdicts, its error rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reward_artifacts import write_scores
from verdict_artifacts import Judge, Pair, always_first, judged, longer, mute, oracle, verdict, write_verdicts

from workers import tables
from workers.judges.annotate_by_judge import annotate_by_judge
from workers.judges.configs import AnnotateByJudgeConfig, AnnotationPairsConfig
from workers.judges.pairs_to_judge import annotation_pairs
from workers.reward_models.annotate import annotate
from workers.reward_models.configs import AnnotateConfig

Write = Callable[[list[list[str]]], Path]
PROMPTS, RESPONSES = 30, 4


class Study:
    """Noise-free annotations of responses whose golden reward is their number of letters, but for one in five."""

    def __init__(self, folder: Path, write: Write, pairing: str = "same") -> None:
        random = np.random.default_rng(0)
        lengths = np.stack([random.permutation(RESPONSES) + 1 for _ in range(PROMPTS)])
        self.rewards = lengths + np.where(random.random(lengths.shape) < 0.2, 10, 0)
        texts = [[f" {'x' * int(length)}{prompt}" for length in row] for prompt, row in enumerate(lengths)]
        self.responses = [write(texts[:11]), write(texts[11:])]
        self.folder = folder
        self.annotations = self.noise_free(pairing)

    def noise_free(self, pairing: str = "same", count: int = PROMPTS) -> Path:
        out = self.folder / f"noise-free-{pairing}-{count}"
        out.mkdir()
        config = AnnotateConfig(sampling="random", pairing=pairing, beta=-1, annotations=count, seed=2)  # type: ignore[arg-type]
        scores = [
            write_scores(self.folder / "s0", self.rewards[:11]), write_scores(self.folder / "s1", self.rewards[11:]),
        ]  # fmt: skip
        annotate(config, out, scores=scores)
        return out

    def pairs(self, annotations: Path | None = None, **fields: Any) -> tuple[list[Pair], dict[str, float]]:
        config = AnnotationPairsConfig(**fields)
        metrics = annotation_pairs(
            config, self.folder, annotations=annotations or self.annotations, responses=self.responses
        )
        assert set(metrics) == set(config.declared())
        rows = tables.PREFERENCES.read(self.folder).to_pylist()
        return [Pair(**row) for row in rows], metrics

    def annotate(
        self, verdicts: list[dict[str, Any]], annotations: Path | None = None, seed: int = 0
    ) -> tuple[dict[str, float], dict[str, list[Any]]]:
        config = AnnotateByJudgeConfig(seed=seed)
        metrics = annotate_by_judge(
            config,
            self.folder,
            annotations=annotations or self.annotations,
            responses=self.responses,
            verdicts=write_verdicts(self.folder / "verdicts", verdicts),
        )
        assert set(metrics) == set(config.declared())
        return metrics, read(self.folder)


def read(folder: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = tables.ANNOTATIONS.read(folder).to_pydict()
    return columns


@pytest.fixture
def study(tmp_path: Path, tiny_write_responses: Write) -> Study:
    return Study(tmp_path, tiny_write_responses)


def test_the_texts_of_annotations_are_in_their_order_with_the_winner_chosen(study: Study) -> None:
    pairs, metrics = study.pairs()
    assert metrics == {"preferences": PROMPTS, "equal_pairs": 0}
    wanted = read(study.annotations)
    texts = [row for folder in study.responses for row in tables.RESPONSES.read(folder).to_pylist()]
    for pair, winner, loser in zip(pairs, wanted["winner"], wanted["loser"], strict=True):
        assert pair == Pair(texts[winner]["prompt"], texts[winner]["response"], texts[loser]["response"])


@pytest.mark.parametrize("orders", ["drawn", "both"])
def test_a_judge_that_knows_the_golden_reward_gives_the_noise_free_annotations(study: Study, orders: str) -> None:
    metrics, found = study.annotate(judged(study.pairs()[0], oracle, orders, samples=3))
    assert found == read(study.annotations)
    assert metrics["flip_rate"] == metrics["undecided_rate"] == 0


def test_a_judge_that_is_always_wrong_turns_every_annotation(study: Study) -> None:
    says = judged(study.pairs()[0], lambda first, second, chosen: 3 - oracle(first, second, chosen))
    metrics, found = study.annotate(says)
    before = read(study.annotations)
    assert (found["winner"], found["loser"]) == (before["loser"], before["winner"])
    assert found["reward_gap"] == [-gap for gap in before["reward_gap"]]
    assert metrics["flip_rate"] == np.mean(np.array(before["reward_gap"]) > 0)
    assert metrics["mean_reward_gap"] == pytest.approx(np.mean(np.abs(before["reward_gap"])))


def test_the_flip_rate_is_the_share_of_pairs_whose_winner_has_the_smaller_golden_reward(study: Study) -> None:
    metrics, found = study.annotate(judged(study.pairs()[0], longer))
    rewards = study.rewards.ravel()
    gaps = rewards[found["winner"]] - rewards[found["loser"]]
    assert found["reward_gap"] == gaps.tolist()
    assert 0 < metrics["flip_rate"] < 0.5
    assert metrics["flip_rate"] == np.mean(gaps < 0)


@pytest.mark.parametrize(("judge", "orders"), [(mute, "drawn"), (always_first, "both")])
def test_where_the_judge_decides_nothing_a_seeded_coin_does(study: Study, judge: Judge, orders: str) -> None:
    says = judged(study.pairs()[0], judge, orders)
    metrics, found = study.annotate(says)
    assert metrics["undecided_rate"] == 1
    assert 0.15 < metrics["flip_rate"] < 0.85
    assert study.annotate(says)[1] == found
    assert study.annotate(says, seed=1)[1] != found


def test_the_coin_of_a_pair_knows_neither_its_label_nor_how_many_there_are(study: Study) -> None:
    says = judged(study.pairs()[0], mute)
    _, whole = study.annotate(says)
    _, few = study.annotate(says, study.noise_free(count=12))
    assert few == {name: column[:12] for name, column in whole.items()}
    turned = study.folder / "turned"
    turned.mkdir()
    before = read(study.annotations)
    opposite = {
        "winner": before["loser"],
        "loser": before["winner"],
        "reward_gap": [-gap for gap in before["reward_gap"]],
    }
    tables.ANNOTATIONS.write(opposite, turned)
    assert study.annotate(says, turned)[1] == whole


def test_two_answers_of_the_same_text_are_not_shown_and_left_to_the_coin(
    tmp_path: Path, tiny_write_responses: Write
) -> None:
    responses = [tiny_write_responses([[" a\n\nHuman: x", " a"], [" b", " c"]])]
    columns = {"winner": [0, 3], "loser": [1, 2], "reward_gap": [0.0, 1.5]}
    tables.ANNOTATIONS.write(columns, tmp_path)
    config = AnnotationPairsConfig()
    out = tmp_path / "out"
    out.mkdir()
    metrics = annotation_pairs(config, out, annotations=tmp_path, responses=responses)
    assert metrics == {"preferences": 1, "equal_pairs": 1}
    (row,) = tables.PREFERENCES.read(out).to_pylist()
    verdicts = write_verdicts(tmp_path / "v", [verdict(row["prompt"], " b", " c", 1)])
    judge = {"annotations": tmp_path, "responses": responses, "verdicts": verdicts}
    metrics = annotate_by_judge(AnnotateByJudgeConfig(), out, **judge)
    assert metrics == {"flip_rate": 0.5, "mean_reward_gap": 0.75, "undecided_rate": 0.5}
    assert read(out)["reward_gap"][1] == -1.5
    with pytest.raises(ValueError, match=r"no verdict about ' a\\n\\nHuman: x' and ' a'"):
        annotate_by_judge(AnnotateByJudgeConfig(cut_at=None), out, **judge)


def test_answers_to_different_prompts_cannot_be_judged(tmp_path: Path, tiny_write_responses: Write) -> None:
    with pytest.raises(
        ValueError, match="compare answers to different prompts, which no judge can: set `pairing: same`"
    ):
        Study(tmp_path, tiny_write_responses, pairing="cross").pairs()


def test_pairs_that_were_not_judged_and_other_responses_are_named(
    study: Study, tmp_path: Path, tiny_write_responses: Write
) -> None:
    says = judged(study.pairs()[0], oracle)
    with pytest.raises(ValueError, match="no verdict about"):
        study.annotate(says[:-1])
    study.responses = [tiny_write_responses([[" a", " b", " c", " d"]])]
    with pytest.raises(ValueError, match="made on other responses than these 4"):
        study.annotate(says)
