"""Stages `world_embeddings` and `world_rewards`: synthetic embeddings of any shape with a known golden reward.

The world is this project's own; no paper has it. A response to a prompt is a vector z = (u, v) of d independent
standard normals: u (m,) belongs to the prompt and is shared by its responses, v (d - m,) belongs to the response alone.
Its embedding is z Q with a random orthogonal Q, so no coordinate is special. Its golden reward is

    r = mean + sd * (sqrt(s) g(u) + sqrt(1 - s - n) h(u, v) + sqrt(n) e),        e standard normal
    g(u)    ~ sum_j a_j tanh(gain * p_j u)
    h(u, v) ~ sum_j b_j tanh(gain * q_j v) (1 + interaction * tanh(gain * o_j u))

with s = `prompt_share`, n = `noise`, and g and h scaled to variance 1. Both are odd, in u and in v, so their means are
0, and that of h is 0 for every prompt: exactly the share s of the variance lies between prompts.

The two stages see the same responses where they agree in the fields of `WorldConfig`. The numbers of a prompt depend on
(seed, split, its index) and on nothing else: shards, and prompts after it, do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from workers.progress import Progress
from workers.reward_models.configs import WorldConfig, WorldEmbeddingsConfig, WorldRewardsConfig
from workers.reward_models.embeddings import EMBEDDINGS_FILE, write_scores
from workers.seeding import generator

#: Responses by which g and h are scaled, each to a prompt of its own: their deviation is then known to about 0.5 %.
_REFERENCE_RESPONSES = 65_536
#: Values of the reference drawn at once: 8 MiB.
_BLOCK_VALUES = 2**20

Reals = NDArray[np.float64]


def world_embeddings(config: WorldEmbeddingsConfig, out: Path) -> dict[str, float]:
    """Embed the responses of a shard.

    Args:
        config: the world and the shard.
        out: receives `embeddings.npy`, `stored_dtype` of shape (prompts of the shard, responses, d). It is written
            through a memory map.

    Returns:
        `embedding_dimension`, d.
    """
    block = shard_prompts(config)
    shape = (len(block), config.responses, config.dimension)
    stored = open_memmap(out / EMBEDDINGS_FILE, mode="w+", dtype=config.stored_dtype, shape=shape)
    orthogonal = rotation(config)
    for row, prompt in _with_progress(block):
        topic, answers = latents(config, prompt)
        whole = np.concatenate([np.broadcast_to(topic, (config.responses, len(topic))), answers], axis=1)
        stored[row] = whole @ orthogonal
    stored.flush()
    return {"embedding_dimension": float(config.dimension)}


def world_rewards(config: WorldRewardsConfig, out: Path) -> dict[str, float]:
    """Score the responses of a shard.

    Args:
        config: the world, its golden reward and the shard.
        out: receives `scores.npy`, float32 of shape (prompts of the shard, responses).

    Returns:
        The metrics of `embeddings.write_scores`. Mean and deviation are those of a sample; `mean` and `sd` of the
        config are those of the world.
    """
    block = shard_prompts(config)
    reward = GoldenReward(config)
    scores = np.empty((len(block), config.responses), dtype=np.float32)
    for row, prompt in _with_progress(block):
        topic, answers = latents(config, prompt)
        unseen = generator(config.seed, f"world/noise/{config.split}/{prompt}").standard_normal(config.responses)
        scores[row] = reward(topic[None, :], answers, unseen)
    return write_scores(scores, out)


def shard_prompts(config: WorldConfig) -> range:
    """Return the prompts of the shard, a contiguous block as in stage `generate` (`numpy.array_split`)."""
    block = np.array_split(np.arange(config.prompts), config.shards)[config.shard]
    return range(int(block[0]), int(block[-1]) + 1)


def latents(config: WorldConfig, prompt: int) -> tuple[Reals, Reals]:
    """Draw u (m,) of a prompt and v (responses, d - m) of its responses; more responses continue fewer."""
    random = generator(config.seed, f"world/{config.split}/{prompt}")
    topic = random.standard_normal(config.prompt_dimension)
    return topic, random.standard_normal((config.responses, config.dimension - config.prompt_dimension))


def rotation(config: WorldConfig) -> Reals:
    """Draw Q (d, d), the orthogonal factor of a normal matrix; another rotation would give an equivalent world."""
    normal = generator(config.seed, "world/rotation").standard_normal((config.dimension, config.dimension))
    orthogonal: Reals = np.linalg.qr(normal)[0]
    return orthogonal


@dataclass(frozen=True)
class GoldenReward:
    """The golden reward of a world, a function of its seed and of the fields that describe rewards."""

    config: WorldRewardsConfig

    def __call__(self, topics: Reals, answers: Reals, unseen: Reals) -> Reals:
        """Return the rewards (k,) of responses v (k, d - m) to prompts u (k, m) or (1, m), given the noise e (k,)."""
        share, noise = self.config.prompt_share, self.config.noise
        prompt_sd, answer_sd = self.deviations
        standard = (
            np.sqrt(share) * self._of_prompt(topics) / prompt_sd
            + np.sqrt(1 - share - noise) * self._of_answer(topics, answers) / answer_sd
            + np.sqrt(noise) * unseen
        )
        rewards: Reals = self.config.mean + self.config.sd * standard
        return rewards

    @cached_property
    def deviations(self) -> tuple[float, float]:
        """Standard deviations of g and h before scaling, about their mean 0, over a sample of the seed."""
        random = generator(self.config.seed, "world/reference")
        own = self.config.dimension - self.config.prompt_dimension
        at_once = max(1, _BLOCK_VALUES // self.config.dimension)
        squares = np.zeros(2)
        for start in range(0, _REFERENCE_RESPONSES, at_once):
            count = min(at_once, _REFERENCE_RESPONSES - start)
            topics = random.standard_normal((count, self.config.prompt_dimension))
            answers = random.standard_normal((count, own))
            of_prompt, of_answer = self._of_prompt(topics), self._of_answer(topics, answers)
            squares += [float(of_prompt @ of_prompt), float(of_answer @ of_answer)]
        prompt_sd, answer_sd = np.sqrt(squares / _REFERENCE_RESPONSES).tolist()
        return prompt_sd, answer_sd

    def _of_prompt(self, topics: Reals) -> Reals:
        hidden = np.tanh(topics @ self._topic_weights)
        value: Reals = hidden @ self._topic_effects
        return value

    def _of_answer(self, topics: Reals, answers: Reals) -> Reals:
        counts = 1 + self.config.interaction * np.tanh(topics @ self._gate_weights)
        value: Reals = (np.tanh(answers @ self._answer_weights) * counts) @ self._answer_effects
        return value

    @cached_property
    def _topic_weights(self) -> Reals:
        return self._weights("topic", self.config.prompt_dimension)

    @cached_property
    def _gate_weights(self) -> Reals:
        return self._weights("gate", self.config.prompt_dimension)

    @cached_property
    def _answer_weights(self) -> Reals:
        return self._weights("answer", self.config.dimension - self.config.prompt_dimension)

    @cached_property
    def _topic_effects(self) -> Reals:
        return generator(self.config.seed, "world/reward/topic/effects").standard_normal(self.config.units)

    @cached_property
    def _answer_effects(self) -> Reals:
        return generator(self.config.seed, "world/reward/answer/effects").standard_normal(self.config.units)

    def _weights(self, layer: str, inputs: int) -> Reals:
        """Draw columns (inputs, units) of length `gain`: each maps standard normals to a normal of that deviation."""
        normal = generator(self.config.seed, f"world/reward/{layer}").standard_normal((inputs, self.config.units))
        weights: Reals = self.config.gain * normal / np.linalg.norm(normal, axis=0)
        return weights


def _with_progress(prompts: range) -> Iterator[tuple[int, int]]:
    """Yield (row of the shard, prompt), and print lines of progress."""
    progress = Progress("prompts", len(prompts))
    for row, prompt in enumerate(prompts):
        yield row, prompt
        progress.show(row + 1)
