"""Tiny models and texts for the tests of the language-model stages, each made once by the real stages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workers import tables

TINY_TASKS = [f"{verb} a {thing}" for verb in ("paint", "mend", "sell", "clean") for thing in ("bike", "boat", "door")]


def _prompt(task: str) -> str:
    return f"\n\nHuman: How do I {task}?\n\nAssistant:"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Several, of several processes on two cores, wait for each other most of the time: a third of the speed."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 demonstrations that all answer in the same words."""
    folder = tmp_path_factory.mktemp("demonstrations")
    tasks = [task for task in TINY_TASKS for _ in range(2)]
    tables.DEMONSTRATIONS.write(
        {
            "prompt": [_prompt(task) for task in tasks],
            "response": [f" To {task}, first buy a good brush and then take your time." for task in tasks],
        },
        folder,
    )
    return folder


@pytest.fixture(scope="session")
def tiny_preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 preferences for help over refusal, so that a reward model can tell all of them."""
    folder = tmp_path_factory.mktemp("preferences")
    tasks = TINY_TASKS * 5
    tables.PREFERENCES.write(
        {
            "prompt": [_prompt(task) for task in tasks],
            "chosen": [f" To {task}, buy {i} good brushes." for i, task in enumerate(tasks)],
            "rejected": [f" No, go away. I hate you, {i}." for i in range(len(tasks))],
            "subset": [""] * len(tasks),
        },
        folder,
    )
    return folder


@pytest.fixture(scope="session")
def tiny_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 train prompts and 4 test prompts."""
    folder = tmp_path_factory.mktemp("prompts")
    tables.PROMPTS.write(
        {
            "prompt_id": list(range(len(TINY_TASKS))),
            "split": ["train"] * 8 + ["test"] * 4,
            "prompt": [_prompt(task) for task in TINY_TASKS],
        },
        folder,
    )
    return folder


@pytest.fixture(scope="session")
def tiny_policy(tiny_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer Llama with a few training steps."""
    return _policy(32, tiny_demonstrations, tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def vllm_policy(tiny_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with heads of 32, the smallest size that vLLM has kernels for on a CPU."""
    return _policy(64, tiny_demonstrations, tmp_path_factory.mktemp("policy"))


def _policy(hidden: int, demonstrations: Path, out: Path) -> Path:
    from workers.language_models.configs import PolicyConfig, TinyLlama, TinyModel
    from workers.language_models.policy import policy

    sizes = TinyLlama(layers=1, hidden=hidden, heads=2, vocabulary=400, context=256, steps=20, batch_size=8)
    policy(PolicyConfig(model=TinyModel(tiny=sizes)), out, demonstrations=demonstrations)
    return out


@pytest.fixture(scope="session")
def tiny_golden(tiny_policy: Path, tiny_preferences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model trained by the golden stage; its metrics lie beside it as metrics.json."""
    import json

    from workers.rewards.configs import GoldenConfig, RewardTraining
    from workers.rewards.golden import golden

    out = tmp_path_factory.mktemp("golden")
    config = GoldenConfig(train=RewardTraining(epochs=6, batch_size=8, held_out=0.25, learning_rate=3e-3))
    metrics = golden(config, out, preferences=tiny_preferences, policy=tiny_policy)
    (out / "metrics.json").write_text(json.dumps(metrics))
    return out


@pytest.fixture(scope="session")
def tiny_chat_golden(tiny_golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reward model, with a chat template."""
    folder = tmp_path_factory.mktemp("chat-golden")
    shutil.copytree(tiny_golden / "model", folder / "model")
    template = "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}</s>{% endfor %}"
    (folder / "model" / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="session")
def tiny_chat_reward(tiny_chat_golden: Path) -> Callable[[str, str], float]:
    """Literally: the reward of an answer to a prompt of one turn, both in that template."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from workers.language_models import models

    source = models.locate(tiny_chat_golden)
    tokenizer = models.load_tokenizer(source)
    model = models.load_model(source, AutoModelForSequenceClassification, tokenizer)

    def reward(prompt: str, answer: str) -> float:
        question = prompt.removeprefix("\n\nHuman: ").removesuffix("\n\nAssistant:")
        text = f"{tokenizer.bos_token}<user>{question}</s><assistant>{answer}</s>"
        with torch.no_grad():
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            return float(model(input_ids=ids).logits[0, 0])

    return reward


@pytest.fixture(scope="session")
def tiny_write_responses(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[list[str]]], Path]:
    """Writes a responses artifact from response texts [prompt][response]; prompt ids are 10, 11, …"""

    def write(texts: list[list[str]]) -> Path:
        folder = tmp_path_factory.mktemp("responses")
        rows = [(10 + p, r, text) for p, group in enumerate(texts) for r, text in enumerate(group)]
        tables.RESPONSES.write(
            {
                "prompt_id": [p for p, _, _ in rows],
                "response_id": [r for _, r, _ in rows],
                "prompt": [_prompt(TINY_TASKS[p % len(TINY_TASKS)]) for p, _, _ in rows],
                "response": [text for _, _, text in rows],
            },
            folder,
        )
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_responses(tiny_write_responses: Callable[[list[list[str]]], Path]) -> Path:
    """3 prompts with 4 responses of very different lengths, one of them empty."""
    return tiny_write_responses(
        [
            [" Yes.", "", " To paint a bike, buy a good brush." * 4, " No, go away.\n\nHuman: why?\n\nAssistant: So."],
            [" I hate you, 3.", " To mend it, take your time.", " é 漢字 🙂", " a"],
            [" To sell a boat, buy 5 good brushes.", " b" * 40, " No.", " To"],
        ]
    )
