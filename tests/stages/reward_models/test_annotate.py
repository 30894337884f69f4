from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_artifacts import write_embeddings, write_scores

from workers import tables
from workers.annotator import reward_scale, second_wins, sigmoid
from workers.reward_models.annotate import annotate, candidate_rows, d_optimal_rows, draw_pairs
from workers.reward_models.configs import AnnotateConfig
from workers.reward_models.embeddings import open_embeddings
from workers.seeding import generator

SAMPLINGS = ("random", "similar", "diversified")


def config(**fields: Any) -> AnnotateConfig:
    return AnnotateConfig(**({"sampling": "random", "beta": 1.0, "annotations": 40, "seed": 5} | fields))


def rewards_of(prompts: int = 60, responses: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((prompts, responses)).astype(np.float32)


def run(tmp_path: Path, rewards: np.ndarray, setting: AnnotateConfig) -> tuple[dict[str, list[Any]], dict[str, float]]:
    half = len(rewards) // 2
    shards = [write_scores(tmp_path / "s0", rewards[:half]), write_scores(tmp_path / "s1", rewards[half:])]
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    metrics = annotate(setting, out, scores=shards)
    assert set(metrics) == set(setting.declared())
    return tables.ANNOTATIONS.read(out).to_pydict(), metrics


def literal_annotations(rewards: np.ndarray, setting: AnnotateConfig) -> list[tuple[int, int, float]]:
    """The definition, one annotation at a time, reading the same declared random numbers."""
    prompts, responses = rewards.shape
    random = generator(setting.seed, "annotate/candidates")
    one = random.integers(responses, size=prompts).tolist()
    other = random.integers(responses - 1, size=prompts).tolist()
    candidates: list[list[int]] = []
    for prompt in range(prompts):
        ranked = sorted(range(responses), key=lambda response, p=prompt: (rewards[p, response], response))
        if setting.sampling == "random":
            remaining = [response for response in range(responses) if response != one[prompt]]
            candidates.append([one[prompt], remaining[other[prompt]]])
        elif setting.sampling == "similar":
            candidates.append([ranked[responses // 2 - 1], ranked[responses // 2]])
        else:
            candidates.append([ranked[0], ranked[responses - 1]])
    pairs = generator(setting.seed, "annotate/pairs")
    first, partner, second = (pairs.integers(limit, size=prompts).tolist() for limit in (2, prompts, 2))
    uniform = generator(setting.seed, "annotate/noise").random(prompts).tolist()
    scale = float(np.std(rewards.astype(np.float64))) if setting.scale == "std" else float(setting.scale)
    rows = []
    for i in range(setting.annotations):
        if setting.pairing == "same":
            a, b = (i, candidates[i][0]), (i, candidates[i][1])
        else:
            j = partner[i]
            a, b = (i, candidates[i][first[i]]), (j, candidates[j][second[i]])
        gap = float(rewards[b]) - float(rewards[a])
        if setting.beta >= 0:
            b_wins = uniform[i] < 1 / (1 + math.exp(-setting.beta * gap / scale))
        else:
            b_wins = gap > 0 or (gap == 0 and uniform[i] < 0.5)
        winner, loser = (b, a) if b_wins else (a, b)
        rows.append((winner[0] * responses + winner[1], loser[0] * responses + loser[1], gap if b_wins else -gap))
    return rows


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("pairing", ["cross", "same"])
@pytest.mark.parametrize(("beta", "scale"), [(0.5, 1.0), (3.0, "std"), (-1.0, 6.0), (0.0, 1.0)])
def test_annotations_equal_the_definition_written_row_by_row(
    tmp_path: Path, sampling: str, pairing: str, beta: float, scale: float | str
) -> None:
    rewards = np.round(rewards_of(), 1)  # rounded, so that there are ties
    setting = config(sampling=sampling, pairing=pairing, beta=beta, scale=scale)
    columns, metrics = run(tmp_path, rewards, setting)
    expected = literal_annotations(rewards, setting)
    assert columns["winner"] == [row[0] for row in expected]
    assert columns["loser"] == [row[1] for row in expected]
    np.testing.assert_allclose(columns["reward_gap"], [row[2] for row in expected], rtol=1e-12)
    assert metrics["flip_rate"] == pytest.approx(np.mean([row[2] < 0 for row in expected]))
    assert metrics["mean_reward_gap"] == pytest.approx(np.mean([abs(row[2]) for row in expected]))


def test_similar_candidates_have_ranks_4_and_5_of_10_and_diversified_0_and_9() -> None:
    rewards = np.stack([np.arange(10), np.arange(10)[::-1]]).astype(np.float32)
    assert candidate_rows(rewards, "similar", 0).tolist() == [[4, 5], [15, 14]]
    assert candidate_rows(rewards, "diversified", 0).tolist() == [[0, 9], [19, 10]]


def test_equal_rewards_are_ranked_by_response_id() -> None:
    rewards = np.zeros((2, 6), dtype=np.float32)
    assert candidate_rows(rewards, "similar", 0).tolist() == [[2, 3], [8, 9]]
    assert candidate_rows(rewards, "diversified", 0).tolist() == [[0, 5], [6, 11]]


@given(
    prompts=st.integers(1, 20),
    responses=st.integers(2, 7),
    sampling=st.sampled_from(SAMPLINGS),
    pairing=st.sampled_from(["cross", "same"]),
    seed=st.integers(0, 2**63 - 1),
)
@settings(deadline=None)
def test_pairs_are_candidates_of_their_prompts_and_nest_in_the_number_of_annotations(
    prompts: int, responses: int, sampling: str, pairing: str, seed: int
) -> None:
    rewards = rewards_of(prompts, responses)
    candidates = candidate_rows(rewards, sampling, seed)
    setting = config(sampling=sampling, pairing=pairing, annotations=prompts, seed=seed)
    whole = draw_pairs(candidates, setting)
    assert (candidates[:, 0] != candidates[:, 1]).all()
    assert (candidates // responses == np.arange(prompts)[:, None]).all()
    assert all(row in candidates[i] for i, row in enumerate(whole[0]))
    assert np.isin(whole[1], candidates).all()
    if pairing == "same":
        assert np.array_equal(np.stack(whole, axis=1), candidates)
    for fewer in range(1, prompts):
        part = draw_pairs(candidates, config(sampling=sampling, pairing=pairing, annotations=fewer, seed=seed))
        assert np.array_equal(part[0], whole[0][:fewer])
        assert np.array_equal(part[1], whole[1][:fewer])


def test_fewer_annotations_are_the_first_of_more(tmp_path: Path) -> None:
    more, _ = run(tmp_path, rewards_of(), config(annotations=60))
    fewer, _ = run(tmp_path, rewards_of(), config(annotations=25))
    assert all(fewer[name] == more[name][:25] for name in fewer)


def test_noise_levels_compare_the_same_pairs_and_a_label_once_right_stays_right(tmp_path: Path) -> None:
    rewards = rewards_of(400)
    before: set[int] = set()
    pairs = None
    for beta in (0.0, 0.5, 0.7, 1.0, 3.0, 5.0, 10.0, -1.0):
        columns, metrics = run(tmp_path, rewards, config(annotations=400, beta=beta))
        compared = [frozenset(pair) for pair in zip(columns["winner"], columns["loser"], strict=True)]
        assert pairs is None or compared == pairs
        pairs = compared
        right = {i for i, gap in enumerate(columns["reward_gap"]) if gap > 0}
        assert before <= right
        before = right
    assert metrics["flip_rate"] == 0


def test_seeds_draw_different_pairs_and_different_noise() -> None:
    rewards = rewards_of()
    one, other = (draw_pairs(candidate_rows(rewards, "random", seed), config(seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[1], other[1])


def test_how_prompts_are_cut_into_shards_does_not_matter(tmp_path: Path) -> None:
    rewards = rewards_of()
    two, _ = run(tmp_path, rewards, config())
    out = tmp_path / "one"
    annotate(config(), out, scores=[write_scores(out, rewards)])
    assert tables.ANNOTATIONS.read(out).to_pydict() == two


def test_a_noise_free_annotator_settles_ties_by_a_fair_coin(tmp_path: Path) -> None:
    columns, metrics = run(tmp_path, np.ones((4000, 2)), config(annotations=4000, beta=-1.0, pairing="same"))
    assert metrics == {"flip_rate": 0.0, "mean_reward_gap": 0.0}
    first, second = draw_pairs(
        candidate_rows(np.ones((4000, 2)), "random", 5), config(annotations=4000, pairing="same")
    )
    share = np.mean(np.array(columns["winner"]) == second)
    assert 0.46 < share < 0.54
    assert (first != second).all()


@given(logit=st.floats(-1e300, 1e300))
def test_the_sigmoid_is_a_probability_and_symmetric_everywhere(logit: float) -> None:
    value = float(sigmoid(np.array(logit)))
    assert 0 <= value <= 1
    assert value + float(sigmoid(np.array(-logit))) == pytest.approx(1, abs=1e-15)
    if abs(logit) < 30:
        assert value == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-12)


def test_extreme_noise_levels_do_not_overflow() -> None:
    gap = np.array([-1e4, 0.0, 1e4])
    with np.errstate(all="raise", under="ignore"):
        assert second_wins(gap, np.array([1e-9, 0.4, 0.999]), 1e308, 1e-300).tolist() == [False, True, True]


def test_std_is_the_deviation_of_all_rewards_and_needs_one(tmp_path: Path) -> None:
    rewards = rewards_of()
    assert reward_scale(rewards, "std") == pytest.approx(float(np.std(rewards.astype(np.float64))))
    assert reward_scale(rewards, 6.0) == 6.0
    with pytest.raises(ValueError, match="all golden rewards are equal"):
        run(tmp_path, np.ones((50, 3)), config(scale="std"))


def test_more_annotations_than_prompts_are_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"61 annotations .* 60 train prompts .*lower `annotations`, or use more train"
    ):
        run(tmp_path, rewards_of(), config(annotations=61))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_single_response_per_prompt_cannot_be_compared(tmp_path: Path, sampling: str) -> None:
    with pytest.raises(ValueError, match="a comparison needs 2: raise `responses`"):
        run(tmp_path, rewards_of(responses=1), config(sampling=sampling))


def test_a_reward_that_is_not_finite_names_its_file(tmp_path: Path) -> None:
    rewards = rewards_of()
    rewards[45, 3] = np.nan
    with pytest.raises(ValueError, match=r"s1/scores\.npy: row 15 is not finite"):
        run(tmp_path, rewards, config())


def embeddings_of(folder: Path, prompts: int = 600, responses: int = 5, dimension: int = 12) -> Path:
    """Some directions vary much more than others."""
    random = np.random.default_rng(3)
    values = random.standard_normal((prompts, responses, dimension)) * np.geomspace(10, 0.1, dimension)
    return write_embeddings(folder, values.astype(np.float32))


def information(embeddings: np.ndarray, rows: np.ndarray) -> float:
    """log det of the sum of v v' over pairs."""
    flat = embeddings.reshape(-1, embeddings.shape[2]).astype(np.float64)
    differences = flat[rows[:, 0]] - flat[rows[:, 1]]
    return float(np.linalg.slogdet(differences.T @ differences)[1])


def test_d_optimal_pairs_tell_more_than_random_and_than_the_longest_ones(tmp_path: Path) -> None:
    source = open_embeddings([embeddings_of(tmp_path)])
    values = np.asarray(source.shards[0])
    chosen = d_optimal_rows(source, 0)
    assert (chosen[:, 0] // 5 == np.arange(600)).all() and (chosen[:, 1] // 5 == np.arange(600)).all()  # noqa: PT018
    assert (chosen[:, 0] != chosen[:, 1]).all()
    random = candidate_rows(np.zeros((600, 5)), "random", 0)
    left, right = np.triu_indices(5, 1)
    longest = np.linalg.norm(values[:, left] - values[:, right], axis=2).argmax(axis=1)
    offsets = np.arange(600)[:, None] * 5
    far = np.stack([left[longest], right[longest]], axis=1) + offsets
    assert information(values, chosen) > information(values, random) + 1
    # Long differences lie along the few directions that vary most, of which enough is known soon.
    assert information(values, chosen) > information(values, far) + 1


def test_d_optimal_pairs_of_the_first_prompts_do_not_depend_on_later_ones_nor_on_shards(tmp_path: Path) -> None:
    whole = open_embeddings([embeddings_of(tmp_path / "whole")])
    values = np.asarray(whole.shards[0])
    first = open_embeddings([write_embeddings(tmp_path / "first", values[:512])])
    cut = [write_embeddings(tmp_path / f"part{i}", part) for i, part in enumerate(np.split(values, [100, 390]))]
    chosen = d_optimal_rows(whole, 0)
    assert np.array_equal(d_optimal_rows(first, 0), chosen[:512])
    assert np.array_equal(d_optimal_rows(open_embeddings(cut), 0), chosen)


def test_d_optimal_needs_the_embeddings_of_the_very_responses(tmp_path: Path) -> None:
    scores = write_scores(tmp_path / "scores", rewards_of(40, 5))
    setting = config(sampling="d_optimal", annotations=30)
    with pytest.raises(ValueError, match=r"d_optimal needs the embeddings .* wire the input `embeddings`"):
        annotate(setting, tmp_path, scores=[scores])
    with pytest.raises(ValueError, match="made from different responses"):
        annotate(setting, tmp_path, scores=[scores], embeddings=[embeddings_of(tmp_path / "e", 41)])
    metrics = annotate(setting, tmp_path, scores=[scores], embeddings=[embeddings_of(tmp_path / "right", 40)])
    assert set(metrics) == set(setting.declared())
    assert tables.ANNOTATIONS.read(tmp_path).num_rows == 30
