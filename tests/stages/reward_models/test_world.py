"""A synthetic world: a golden reward that is known, smooth, not linear, and split between prompts as stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workers.configs import WorldEmbeddingsConfig, WorldRewardsConfig
from workers.reward_models.embeddings import open_embeddings, read_scores, require_aligned
from workers.reward_models.world import GoldenReward, latents, rotation, shard_prompts, world_embeddings, world_rewards
from workers.seeding import generator

SHAPE: dict[str, Any] = {"split": "train", "prompts": 23, "responses": 4, "dimension": 12, "prompt_dimension": 3}


def embeddings_of(folder: Path, **fields: Any) -> Path:
    folder.mkdir(parents=True)
    config = WorldEmbeddingsConfig.model_validate(SHAPE | fields)
    metrics = world_embeddings(config, folder)
    assert set(metrics) == set(config.declared())
    assert metrics["embedding_dimension"] == config.dimension
    return folder


def rewards_of(folder: Path, **fields: Any) -> Path:
    folder.mkdir(parents=True)
    config = WorldRewardsConfig.model_validate(SHAPE | fields)
    metrics = world_rewards(config, folder)
    assert set(metrics) == set(config.declared())
    scores = np.load(folder / "scores.npy")
    assert metrics["mean_reward"] == pytest.approx(scores.mean(), abs=1e-6)
    assert metrics["sd_reward"] == pytest.approx(scores.std(), abs=1e-6)
    return folder


@pytest.mark.parametrize("stored_dtype", ["float16", "float32"])
def test_shapes_and_types_are_those_of_embed_and_score(tmp_path: Path, stored_dtype: str) -> None:
    embedded = embeddings_of(tmp_path / "e", stored_dtype=stored_dtype)
    scored = rewards_of(tmp_path / "r")
    array = np.load(embedded / "embeddings.npy")
    assert (array.shape, array.dtype) == ((23, 4, 12), np.dtype(stored_dtype))
    scores = np.load(scored / "scores.npy")
    assert (scores.shape, scores.dtype) == ((23, 4), np.dtype("float32"))
    require_aligned([embedded], [scored])
    assert open_embeddings([embedded]).dimension == 12
    assert read_scores([scored]).shape == (23, 4)


@pytest.mark.parametrize("make", [embeddings_of, rewards_of])
def test_a_world_made_again_is_the_same_to_the_byte(tmp_path: Path, make: Callable[..., Path]) -> None:
    one, again, other = make(tmp_path / "a", seed=3), make(tmp_path / "b", seed=3), make(tmp_path / "c", seed=4)
    (name,) = (each.name for each in one.iterdir())
    assert (one / name).read_bytes() == (again / name).read_bytes()
    assert not np.array_equal(np.load(one / name), np.load(other / name))


@pytest.mark.parametrize("make", [embeddings_of, rewards_of])
@pytest.mark.parametrize("shards", [2, 23])
def test_how_prompts_are_cut_into_shards_does_not_matter(
    tmp_path: Path, make: Callable[..., Path], shards: int
) -> None:
    whole = make(tmp_path / "whole", noise=0.2) if make is rewards_of else make(tmp_path / "whole")
    extra = {"noise": 0.2} if make is rewards_of else {}
    (name,) = (each.name for each in whole.iterdir())
    parts = [
        np.load(make(tmp_path / str(shard), shard=shard, shards=shards, **extra) / name) for shard in range(shards)
    ]
    assert np.array_equal(np.concatenate(parts), np.load(whole / name))


@given(prompts=st.integers(1, 60), shards=st.integers(1, 60))
@settings(deadline=None)
def test_shards_are_the_contiguous_blocks_of_numpy(prompts: int, shards: int) -> None:
    fields = SHAPE | {"prompts": prompts, "shards": min(shards, prompts)}
    blocks = [
        list(shard_prompts(WorldEmbeddingsConfig.model_validate(fields | {"shard": shard})))
        for shard in range(fields["shards"])
    ]
    assert blocks == [block.tolist() for block in np.array_split(np.arange(prompts), fields["shards"])]


def test_fewer_prompts_and_responses_are_the_first_of_more(tmp_path: Path) -> None:
    more = np.load(embeddings_of(tmp_path / "e") / "embeddings.npy")
    fewer = np.load(embeddings_of(tmp_path / "f", prompts=7, responses=2) / "embeddings.npy")
    np.testing.assert_allclose(fewer, more[:7, :2], atol=1e-6)  # products of other shapes round otherwise
    more = np.load(rewards_of(tmp_path / "r", noise=0.3) / "scores.npy")
    fewer = np.load(rewards_of(tmp_path / "s", noise=0.3, prompts=7, responses=2) / "scores.npy")
    np.testing.assert_allclose(fewer, more[:7, :2], atol=1e-6)


def literal_reward(
    config: WorldRewardsConfig, deviations: tuple[float, float], topic: np.ndarray, answer: np.ndarray, unseen: float
) -> float:
    """The formula of the module, one response and one unit at a time."""

    def weights(layer: str, inputs: int) -> np.ndarray:
        columns = generator(config.seed, f"world/reward/{layer}").standard_normal((inputs, config.units))
        return config.gain * columns / np.sqrt((columns**2).sum(axis=0))

    m = config.prompt_dimension
    p, o, q = weights("topic", m), weights("gate", m), weights("answer", config.dimension - m)
    a = generator(config.seed, "world/reward/topic/effects").standard_normal(config.units)
    b = generator(config.seed, "world/reward/answer/effects").standard_normal(config.units)
    g = sum(a[j] * np.tanh(p[:, j] @ topic) for j in range(config.units))
    h = sum(
        b[j] * np.tanh(q[:, j] @ answer) * (1 + config.interaction * np.tanh(o[:, j] @ topic))
        for j in range(config.units)
    )
    prompt_sd, answer_sd = deviations
    share, noise = config.prompt_share, config.noise
    standard = np.sqrt(share) * g / prompt_sd + np.sqrt(1 - share - noise) * h / answer_sd + np.sqrt(noise) * unseen
    return config.mean + config.sd * float(standard)


def test_rewards_are_the_stated_function_of_the_stored_embedding(tmp_path: Path) -> None:
    fields = {"noise": 0.1, "mean": 2.0, "sd": 3.0, "seed": 9}
    config = WorldRewardsConfig.model_validate(SHAPE | fields)
    stored = np.load(embeddings_of(tmp_path / "e", seed=9) / "embeddings.npy").astype(np.float64)
    directions = stored @ rotation(config).T  # back from the embedding to (u, v)
    found = np.load(rewards_of(tmp_path / "r", **fields) / "scores.npy")
    deviations = GoldenReward(config).deviations
    for prompt in range(config.prompts):
        noise = generator(9, f"world/noise/train/{prompt}").standard_normal(config.responses)
        for response in range(config.responses):
            u, v = np.split(directions[prompt, response], [config.prompt_dimension])
            literal = literal_reward(config, deviations, u, v, noise[response])
            assert found[prompt, response] == pytest.approx(literal, abs=1e-4)


def test_responses_of_a_prompt_share_its_directions_and_the_rotation_hides_which() -> None:
    config = WorldEmbeddingsConfig.model_validate(SHAPE)
    turned = rotation(config)
    np.testing.assert_allclose(turned @ turned.T, np.eye(12), atol=1e-12)
    assert np.abs(turned).max() < 0.95
    topic, answers = latents(config, 5)
    assert (topic.shape, answers.shape) == ((3,), (4, 9))
    assert len({tuple(row) for row in answers.tolist()}) == 4


LARGE: dict[str, Any] = {"prompts": 4000, "responses": 10, "dimension": 16, "prompt_dimension": 6}


def between_prompt_share(rewards: np.ndarray) -> float:
    """Intraclass correlation from the one-way analysis of variance (Shrout & Fleiss 1979, ICC(1, 1))."""
    k = rewards.shape[1]
    between = k * rewards.mean(axis=1).var(ddof=1)
    within = float(rewards.var(axis=1, ddof=1).mean())
    return float((between - within) / (between + (k - 1) * within))


@pytest.mark.parametrize(("share", "noise"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.5), (0.8, 0.1)])
def test_the_stated_share_of_the_stated_variance_lies_between_prompts(
    tmp_path: Path, share: float, noise: float
) -> None:
    fields = LARGE | {"prompt_share": share, "noise": noise, "mean": -1.5, "sd": 0.9}
    rewards = np.load(rewards_of(tmp_path / "r", **fields) / "scores.npy").astype(np.float64)
    # 4,000 prompts: the standard errors are at most 0.013 of the mean, 1 % of the deviation and 0.013 of the share.
    assert rewards.mean() == pytest.approx(-1.5, abs=0.05)
    assert rewards.std() == pytest.approx(0.9, rel=0.03)
    assert between_prompt_share(rewards) == pytest.approx(share, abs=0.04)


def test_the_noise_is_the_stated_share_of_the_variance_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    seen, noisy = (
        np.load(rewards_of(tmp_path / str(noise), **LARGE, prompt_share=0.25, noise=noise) / "scores.npy")
        for noise in (0.0, 0.36)
    )
    # Within prompts 0.75 becomes 0.39 visible: what is left over after regressing on the noise-free reward is noise.
    centred, target = (array - array.mean(axis=1, keepdims=True) for array in (seen, noisy))
    slope = float((centred * target).sum() / (centred**2).sum())
    assert slope == pytest.approx(np.sqrt(0.39 / 0.75), rel=0.02)
    left = target - slope * centred
    assert (left**2).sum() / (4000 * 9) == pytest.approx(0.36 * 0.9**2, rel=0.02)


def test_train_and_test_are_different_draws_from_one_world(tmp_path: Path) -> None:
    train, test = (embeddings_of(tmp_path / f"e-{split}", split=split) for split in ("train", "test"))
    drawn = [np.load(each / "embeddings.npy").reshape(-1, 12) for each in (train, test)]
    # No response of one lies near a response of the other.
    assert np.linalg.norm(drawn[0][:, None] - drawn[1][None], axis=-1).min() > 0.1
    configs = [WorldRewardsConfig.model_validate(SHAPE | {"split": split}) for split in ("train", "test")]
    topics, answers = np.random.default_rng(0).standard_normal((5, 3)), np.random.default_rng(1).standard_normal((5, 9))
    values = [GoldenReward(config)(topics, answers, np.zeros(5)) for config in configs]
    assert np.array_equal(*values)
    assert np.array_equal(*(rotation(config) for config in configs))


def test_what_is_learnt_on_train_holds_on_test_and_a_linear_probe_sees_only_a_part(tmp_path: Path) -> None:
    shape = LARGE | {"prompts": 1000}
    features, targets = {}, {}
    for split in ("train", "test"):
        embedded = embeddings_of(tmp_path / f"e-{split}", **shape, split=split)
        features[split] = np.load(embedded / "embeddings.npy").reshape(-1, 16)
        targets[split] = np.load(rewards_of(tmp_path / f"r-{split}", **shape, split=split) / "scores.npy").ravel()

    def explained(predicted: np.ndarray) -> float:
        return float(1 - ((targets["test"] - predicted) ** 2).mean() / targets["test"].var())

    weights = np.linalg.lstsq(features["train"], targets["train"], rcond=None)[0]
    linear = explained(features["test"] @ weights)
    with one_thread():
        mlp = explained(mlp_probe(features["train"], targets["train"], features["test"]))
    assert 0.3 < linear < 0.8
    assert mlp > linear + 0.1


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take longer over so small a network."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mlp_probe(train: np.ndarray, rewards: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predictions of a small network after 12 epochs of Adam."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(train.shape[1], 128), torch.nn.Tanh(), torch.nn.Linear(128, 64))
        network.extend([torch.nn.Tanh(), torch.nn.Linear(64, 1)])
        x, y = torch.from_numpy(train), torch.from_numpy(rewards)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(12):
            for batch in torch.randperm(len(x)).split(200):
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(network(x[batch]).squeeze(-1), y[batch]).backward()
                optimizer.step()
        with torch.inference_mode():
            predicted: np.ndarray = network(torch.from_numpy(test)).squeeze(-1).numpy()
    return predicted


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shard": 2, "shards": 2}, "shard 2 of 2: shards count from 0"),
        ({"shards": 24}, "23 prompts cannot be cut into 24 shards"),
        ({"prompt_dimension": 12}, "prompt_dimension 12 of dimension 12 leaves no direction"),
        ({"prompt_share": 0.5, "noise": 0.5}, "their sum must be below 1"),
    ],
)
def test_a_world_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        WorldRewardsConfig.model_validate(SHAPE | fields)
