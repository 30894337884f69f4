"""Published `.npy` files of embeddings and rewards, in both layouts, enter a sweep as they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from workers.configs import LocalPath, PublishedEmbeddingsConfig, PublishedRewardsConfig
from workers.reward_models.embeddings import open_embeddings, read_scores, require_aligned
from workers.reward_models.published import published_embeddings, published_rewards

PROMPTS, RESPONSES, D = 7, 3, 5
VECTORS = np.random.default_rng(0).normal(size=(PROMPTS, RESPONSES, D)).astype(np.float32)
REWARDS = np.random.default_rng(1).normal(size=(PROMPTS, RESPONSES)).astype(np.float32)
ROWS = np.array([20, 0, 4, 4, 11])

#: Layout -> the arrays as they are published in it.
LAYOUTS = {
    "prompts_first": (VECTORS, REWARDS[..., None]),
    "responses_first": (VECTORS.transpose(1, 0, 2).copy(), REWARDS.T.copy()),
}


def written(folder: Path, name: str, array: np.ndarray) -> LocalPath:
    file = folder / name
    np.save(file, array)
    return LocalPath(path=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def embed(folder: Path, array: np.ndarray, layout: str = "prompts_first", prompts: int | None = None) -> Path:
    config = PublishedEmbeddingsConfig(file=written(folder, "embd.npy", array), layout=layout, prompts=prompts)  # type: ignore[arg-type]
    out = folder / "embeddings"
    out.mkdir(exist_ok=True)
    metrics = published_embeddings(config, out)
    assert metrics == {"prompts": PROMPTS, "responses": RESPONSES, "embedding_dimension": D}
    assert set(metrics) == set(config.declared())
    return out


def reward(folder: Path, array: np.ndarray, layout: str = "prompts_first", prompts: int | None = None) -> Path:
    config = PublishedRewardsConfig(file=written(folder, "reward.npy", array), layout=layout, prompts=prompts)  # type: ignore[arg-type]
    out = folder / "scores"
    out.mkdir(exist_ok=True)
    metrics = published_rewards(config, out)
    assert set(metrics) == set(config.declared())
    assert metrics["mean_reward"] == pytest.approx(REWARDS.mean())
    assert metrics["sd_reward"] == pytest.approx(REWARDS.std())
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_both_layouts_read_as_prompts_by_responses(tmp_path: Path, layout: str, dtype: str) -> None:
    vectors, rewards = LAYOUTS[layout]
    embeddings = embed(tmp_path, vectors.astype(dtype), layout, PROMPTS)
    scores = reward(tmp_path, rewards, layout, PROMPTS)
    require_aligned([embeddings], [scores])
    assert (read_scores([scores]) == REWARDS).all()
    opened = open_embeddings([embeddings])
    expected = VECTORS.astype(dtype).astype(np.float32)
    assert (opened.gather(ROWS) == expected.reshape(-1, D)[ROWS]).all()
    blocks = list(opened.blocks(3))
    assert [first for first, _ in blocks] == [0, 3, 6]
    assert (np.concatenate([block for _, block in blocks]) == expected).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_file_continues_other_shards(tmp_path: Path, layout: str) -> None:
    embeddings = embed(tmp_path, LAYOUTS[layout][0], layout)
    opened = open_embeddings([embeddings, embeddings])
    both = np.concatenate([VECTORS, VECTORS]).reshape(-1, D)
    rows = np.array([40, 2, 21])
    assert (opened.gather(rows) == both[rows]).all()


def test_embeddings_are_referred_to_and_not_copied(tmp_path: Path) -> None:
    out = embed(tmp_path, VECTORS)
    assert [each.name for each in out.iterdir()] == ["reference.json"]
    assert isinstance(open_embeddings([out]).shards[0], np.memmap)


def test_the_same_bytes_elsewhere_have_the_same_identity(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = PublishedEmbeddingsConfig(file=written(tmp_path, "a.npy", VECTORS), layout="prompts_first")
    there = PublishedEmbeddingsConfig(file=written(tmp_path / "other", "b.npy", VECTORS), layout="prompts_first")
    assert here.identity() == there.identity()


def test_a_row_that_is_not_finite_is_an_error_that_names_file_and_row(tmp_path: Path) -> None:
    bad = VECTORS.copy()
    bad[4, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"embd\.npy: row 13 is not finite"):
        embed(tmp_path, bad)
    with pytest.raises(ValueError, match=r"embd\.npy: row 13 is not finite"):
        embed(tmp_path, bad.transpose(1, 0, 2).copy(), "responses_first")
    rewards = REWARDS.copy()
    rewards[5, 0] = np.inf
    with pytest.raises(ValueError, match=r"reward\.npy: row 5 is not finite"):
        reward(tmp_path, rewards)
    # Finite in the file, but not in what is kept of it.
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"reward\.npy: row 0 is not finite"):
        reward(tmp_path, REWARDS.astype(np.float64) * 1e300)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (VECTORS[0], r"embd\.npy: shape \(3, 5\), expected \(prompts, responses, d\)"),
        (VECTORS[:0], r"embd\.npy: shape \(0, 3, 5\)"),
        (VECTORS.astype(np.float64), r"embd\.npy: type <f8, expected float16 or float32"),
        (VECTORS.astype(">f4"), r"embd\.npy: type >f4"),
        (np.asfortranarray(VECTORS), r"embd\.npy: stored in Fortran order"),
    ],
)
def test_another_shape_or_type_is_an_error_that_names_the_file(tmp_path: Path, array: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        embed(tmp_path, array)


def test_a_mistaken_layout_is_found_by_the_number_of_prompts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 3 prompts as responses_first, expected 7; is it the other layout"):
        embed(tmp_path, VECTORS, "responses_first", PROMPTS)
    with pytest.raises(ValueError, match=r"reward\.npy: .*is it the other layout"):
        reward(tmp_path, REWARDS.T.copy(), "prompts_first", PROMPTS)
    with pytest.raises(ValueError, match=r"reward\.npy: float32 of shape \(7, 3, 2\)"):
        reward(tmp_path, np.stack([REWARDS, REWARDS], axis=-1))


def test_embeddings_and_rewards_of_other_shapes_do_not_go_together(tmp_path: Path) -> None:
    embeddings = embed(tmp_path, VECTORS)
    out = tmp_path / "scores"
    out.mkdir()
    config = PublishedRewardsConfig(file=written(tmp_path, "reward.npy", REWARDS[:5]), layout="prompts_first")
    published_rewards(config, out)
    with pytest.raises(ValueError, match=r"embd\.npy holds .*\(7, 3\), but .*scores\.npy holds \(5, 3\)"):
        require_aligned([embeddings], [out])


def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    embed(tmp_path, VECTORS)
    file = tmp_path / "embd.npy"
    os.truncate(file, file.stat().st_size - 4)
    config = PublishedEmbeddingsConfig(file=LocalPath(path=str(file), sha256="0" * 64), layout="prompts_first")
    with pytest.raises(ValueError, match=r"embd\.npy: not a readable, non-empty \.npy file"):
        published_embeddings(config, tmp_path)


def test_a_file_that_changed_or_went_away_later_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    out = embed(tmp_path, VECTORS)
    file = tmp_path / "embd.npy"
    np.save(file, VECTORS + 1)
    with pytest.raises(ValueError, match=r"embd\.npy: changed since .* referred to it; put it back"):
        open_embeddings([out])
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"embd\.npy is gone, to which .* refers; put it back"):
        open_embeddings([out])
