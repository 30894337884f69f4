"""All that `make rehearse-full` changes in `sweeps/full.yaml`, as `-s` overrides: models, data, sizes, resources.

Axes keep their values, so that the cells are those of the paper: of `annotations: 40000` only what it stands for
changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

#: Label of the axis -> pairs that are annotated.
ANNOTATIONS = {5000: 20, 10000: 40, 20000: 80, 40000: 160}
#: Train prompts; each is annotated once at most.
PROMPTS = 160
#: One test prompt for every shard of `full.yaml`.
TEST_PROMPTS = 32
RESPONSES = 4

#: The entries that ask for a GPU in `full.yaml`.
ON_GPUS = ("sft", "generate_train", "generate_test", "score_train", "score_test", "embed_train", "embed_test")

#: 36 of the 12,960 cells: both families of policies, with and without SFT, all reward models. One data set, since each
#: process that trains takes ten seconds to import what it needs.
FEW = (
    "policy=gemma-2b,llama3-8b-sft", "dataset=harmless", "sampling=random", "annotations=5000", "seed=0",
)  # fmt: skip


def overrides(models: Mapping[str, Path], data: Path, few: bool) -> list[str]:
    """The overrides as arguments of `sweep run`.

    Args:
        models: name on the Hub -> folder of the model that stands in for it.
        data: folder of `harmless.jsonl` and `helpful.jsonl`.
        few: select the cells of `FEW`, and cut the work of language models into fewer shards.
    """
    folders = {name: _named(folder) for name, folder in models.items()}
    gemma = folders["google/gemma-2b"]
    values: dict[str, object] = {
        "axes.policy.gemma-2b.model": gemma,
        "axes.policy.gemma-2b-sft.model": gemma,
        "axes.policy.gemma-7b.model": folders["google/gemma-7b"],
        "axes.policy.gemma-7b-sft.model": folders["google/gemma-7b"],
        "axes.policy.llama3-8b.model": folders["meta-llama/Meta-Llama-3-8B"],
        "axes.policy.llama3-8b-sft.model": folders["meta-llama/Meta-Llama-3-8B"],
        "axes.dataset.harmless.golden": folders["Ray2333/gpt2-large-harmless-reward_model"],
        "axes.dataset.helpful.golden": folders["weqweasdas/RM-Gemma-7B"],
        "stages.prompts.config.tokenizer": gemma,
        "stages.embed_train.config.model": gemma,
        "stages.embed_test.config.model": gemma,
        # In the environment of the others.
        "stages.generate_train.config.engine": "transformers",
        "stages.generate_test.config.engine": "transformers",
        # CPUs have no tf32.
        "stages.embed_train.config.dtype": "float32",
        "stages.embed_test.config.dtype": "float32",
        "stages.prompts.config.train": PROMPTS,
        "stages.prompts.config.test": TEST_PROMPTS,
        "stages.demonstrations.config.limit": 32,
        "stages.generate_train.config.responses": RESPONSES,
        "stages.generate_test.config.responses": RESPONSES,
        "stages.generate_train.config.max_new_tokens": 8,
        "stages.generate_test.config.max_new_tokens": 8,
        "axes.annotations": _named_values(ANNOTATIONS),
        "stages.annotate.config.annotations": "$annotations.pairs",
        "axes.reward_model.bt_mlp.config": "{loss: bt, training: paper, hidden: [16, 8], epochs: 3}",
        "axes.reward_model.clf_mlp.config": "{loss: clf, training: paper, hidden: [16, 8], epochs: 3}",
        "axes.reward_model.clf_lgb.config": "{num_boost_round: 3, min_data_in_leaf: 5}",
        "stages.evaluate.config": f"{{best_of: [2, {RESPONSES}], repeats: 10, pairs: 200}}",
        # One core for everything, so that as much runs at once as the cores allow.
        "runtime.default": "{cpus: 1, attempts: 3, timeout: 10m}",
        **{f"runtime.{entry}": "{cpus: 1, gpus: 1}" for entry in ON_GPUS},
        "runtime.fit": "{cpus: 1}",
        "runtime.evaluate": "{cpus: 1}",
    }
    for kind in ("harmless", "helpful"):
        for split in ("train", "test"):
            values[f"axes.dataset.{kind}.{split}"] = _named(data / f"{kind}.jsonl")
    if few:
        values |= {f"stages.generate_{split}.shards": 2 for split in ("train", "test")}
    arguments = [word for place, value in values.items() for word in ("-s", f"{place}={value}")]
    return arguments + ([word for choice in FEW for word in ("--only", choice)] if few else [])


def _named(path: Path) -> str:
    return f"{{path: {json.dumps(str(path))}}}"


def _named_values(pairs: Mapping[int, int]) -> str:
    return "{" + ", ".join(f"{label}: {{pairs: {number}}}" for label, number in pairs.items()) + "}"
