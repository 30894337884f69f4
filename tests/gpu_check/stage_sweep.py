"""A small sweep in which every stage that computes on a GPU has a step, and how its steps are run here.

Its tiny models learn from the data that this repository ships. It is run step by step, without Ray and MLflow, by what
also runs the steps of a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.session import Session, open_session
from orchestrator.types import Attempt, Manifest, Outcome, Runtime, Step

DATA = Path(__file__).parents[2] / "sweeps" / "data"


def stage_sweep() -> dict[str, Any]:
    """Return the sweep as values."""
    source = {"path": str(DATA / "helpful.jsonl")}
    trained = {"batch_size": 8, "max_tokens": 128}
    return {
        "name": "gpu-check",
        "question": "Does a GPU compute what a CPU does?",
        "axes": {
            "reward_model": {
                "bt": {"loss": "bt", "training": "paper", "precision": "float32"},
                "clf": {"loss": "clf", "training": "clean", "precision": "float32"},
                "tf32": {"loss": "bt", "training": "clean", "precision": "tf32"},
                "bfloat16": {"loss": "bt", "training": "paper", "precision": "bfloat16"},
            },
            "seed": [0],
        },
        "stages": {
            "prompts": {"config": {"source": source, "train": 48, "test": 8}},
            "demonstrations": {"config": {"source": source, "limit": 64}},
            "preferences": {"config": {"source": source, "limit": 48}},
            "policy": {
                "inputs": {"demonstrations": "demonstrations"},
                "config": {
                    "model": {"tiny": {"layers": 2, "hidden": 64, "heads": 2, "vocabulary": 512, "context": 512,
                                       "steps": 6, "batch_size": 8}}
                },
            },
            "sft": {
                "inputs": {"policy": "policy", "demonstrations": "demonstrations"},
                "config": {**trained, "epochs": 0.5, "learning_rate": 5e-4},
            },
            "golden": {
                "inputs": {"preferences": "preferences", "policy": "policy"},
                "config": {"train": {**trained, "epochs": 0.75, "learning_rate": 1e-3, "held_out": 0.25}},
            },
            "generate": {
                "inputs": {"policy": "sft", "prompts": "prompts"},
                "config": {"split": "train", "responses": 4, "max_new_tokens": 16},
            },
            "score": {"inputs": {"golden": "golden", "responses": "generate"}, "config": {"max_tokens": 128}},
            "embed": {"inputs": {"policy": "policy", "responses": "generate"}, "config": {"max_tokens": 128}},
            "annotate": {
                "inputs": {"scores": "score"},
                "config": {"sampling": "random", "beta": 3, "scale": "std", "annotations": 48, "seed": "$seed"},
            },
            "fit": {
                "stage": "fit_mlp",
                "inputs": {"annotations": "annotate", "embeddings": "embed"},
                "config": [{"hidden": [64, 32], "epochs": 5, "patience": 5, "seed": "$seed"}, "$reward_model"],
            },
            "evaluate": {
                "inputs": {"reward_model": "fit", "embeddings": "embed", "scores": "score"},
                "config": {"best_of": [2, 4], "repeats": 10, "pairs": 1000, "precision": "$reward_model.precision"},
            },
            "dpo": {
                "inputs": {"policy": "policy", "preferences": "preferences"},
                "config": {**trained, "epochs": 0.5, "learning_rate": 5e-4, "warmup": 0, "sft_weight": 0.1},
            },
            "scalar": {
                "stage": "scalar_train",
                "inputs": {"policy": "policy", "preferences": "preferences"},
                "config": {**trained, "epochs": 0.5, "learning_rate": 1e-3},
            },
            "verdicts": {
                "stage": "scalar_verdicts",
                "inputs": {"scalar": "scalar", "preferences": "preferences"},
                "config": {"max_tokens": 128},
            },
            "margins": {
                "inputs": {"golden": "golden", "preferences": "preferences"},
                "config": {"max_tokens": 128},
            },
            "judgments": {
                "stage": "judge_sample",
                "inputs": {"preferences": "preferences", "judge": "policy"},
                "config": {"samples": 1, "max_new_tokens": 16, "limit": 12, "repetition_penalty": 1.1, "seed": "$seed"},
            },
        },
        "results": ["evaluate"],
        "tracking": False,
    }  # fmt: skip


def open_values(values: dict[str, Any], folder: Path) -> Session:
    """Write a sweep into a folder, which also gets its outputs, and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{values['name']}.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(values, indent=1))
    return open_session(file, outputs=str(folder / "outputs"))


def request_of(session: Session, step: Step, runtime: Runtime) -> Request:
    """Return the request for a step that the driver would send."""
    return Request(step, 1, runtime, session.outputs.store, "gpu-check", "gpucheck")


def run_all(session: Session, runtime: Runtime) -> Iterator[Attempt]:
    """Run all steps of a sweep in this process, each after those that it needs; those of steps that failed are not."""
    session.store.prepare()
    made: set[int] = set()
    for number in range(len(session.plan)):
        if all(parent in made for parent in session.plan.parents(number)):
            (attempt,) = run_bundle([request_of(session, session.plan.step(number), runtime)])
            if attempt.outcome is Outcome.SUCCEEDED:
                made.add(number)
            yield attempt


def steps_of(session: Session, entry: str) -> list[Step]:
    """Return the steps of an entry."""
    plan = session.plan
    return [plan.step(number) for number in range(len(plan)) if plan.entry_of(number) == entry]


def manifest_of(session: Session, step: Step) -> Manifest | None:
    """Return the manifest of a step; None if there is no sound artifact of it."""
    found = session.store.manifests([step.address])[step.address]
    return found if isinstance(found, Manifest) else None
