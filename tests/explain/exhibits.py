"""Stages of a study of its own whose artifacts are worth a look: kinds that are known, and one that nobody knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import toy

from workers import config as configs
from workers.data.responses import write_responses
from workers.history import write_history
from workers.metric import Metric
from workers.reward_models.embeddings import write_scores
from workers.reward_models.heads import save_linear
from workers.stage import Input, Stage
from workers.tables import JUDGMENTS, PREFERENCES

#: Prompts of each shard, responses to each, and numbers of an embedding.
PROMPTS, RESPONSES, WIDTH = 4, 5, 3
WEIGHTS, BIAS = np.array([0.5, -1.0, 2.0]), 0.25

TEXT = "\x1b[31mred\x1b]0;title\x07 " + toy.MARKUP

SWEEP = """\
name: exhibits
question: What was made?
uses: [exhibits]
axes: {x: [1, 2]}
stages:
  answers: {stage: exhibit_responses, shards: 2, config: {fail: false}}
  golden: {stage: exhibit_scores, inputs: {responses: answers}}
  embedded: {stage: exhibit_embeddings, inputs: {responses: answers}}
  model: {stage: exhibit_model, config: {value: $x}}
  measured: {stage: exhibit_evaluation, inputs: {reward_model: model, embeddings: embedded, scores: golden}}
  pairs: {stage: exhibit_preferences}
  judgments: {stage: exhibit_judgments, inputs: {preferences: pairs}}
  verdicts: {stage: judge_parse, inputs: {judgments: judgments}}
  odd: {stage: exhibit_odd, inputs: {model: model}}
results: [measured]
tracking: false
"""


class ExhibitConfig(configs.Config):
    """Whatever a stage here needs."""

    value: float = 0
    fail: bool = False
    shard: int = 0
    shards: int = 1

    def metrics(self) -> tuple[str | Metric, ...]:
        return (Metric("count", shards="sum"),)


def embeddings_of(shard: int) -> np.ndarray:
    return np.random.default_rng(shard).normal(size=(PROMPTS, RESPONSES, WIDTH)).astype(np.float32)


def scores_of(shard: int) -> np.ndarray:
    return np.random.default_rng(100 + shard).normal(size=(PROMPTS, RESPONSES)).astype(np.float32)


def _shard(responses: Path) -> int:
    return int(pq.read_table(responses / "responses.parquet")["prompt_id"][0].as_py()) // PROMPTS


def responses(config: ExhibitConfig, out: Path) -> dict[str, float]:
    if config.fail and config.shard:
        print("\n".join(f"line {number}" for number in range(40)))
        raise ValueError(TEXT)
    ids = [config.shard * PROMPTS + number for number in range(PROMPTS)]
    texts = [f"{TEXT} {number}" for number in range(PROMPTS * RESPONSES)]
    write_responses(ids, [f"\n\nHuman: {each}?\n\nAssistant:" for each in ids], texts, out)
    return {"count": float(len(texts))}


def scores(config: ExhibitConfig, out: Path, *, responses: Path) -> dict[str, float]:
    write_scores(scores_of(_shard(responses)), out)
    return {"count": 1.0}


def embeddings(config: ExhibitConfig, out: Path, *, responses: Path) -> dict[str, float]:
    np.save(out / "embeddings.npy", embeddings_of(_shard(responses)))
    return {"count": 1.0}


def model(config: ExhibitConfig, out: Path) -> dict[str, float]:
    save_linear(WEIGHTS * config.value, BIAS, out)
    log = [{"step": step, "learning_rate": 0.1, "loss": 1000.0 - step} for step in range(1000)]
    write_history([*log, {"step": 1000, "loss": float("nan")}], out)
    return {"count": 1.0}


def evaluation(
    config: ExhibitConfig, out: Path, *, reward_model: Path, embeddings: list[Path], scores: list[Path]
) -> dict[str, float]:
    pq.write_table(pa.table({"n": [2], "mean": [0.5], "sd": [0.1]}), out / "best_of.parquet")
    return {"count": float(len(scores))}


def preferences(config: ExhibitConfig, out: Path) -> dict[str, float]:
    columns = {"prompt": ["p0", "p1", "p2"], "chosen": ["good"] * 3, "rejected": ["bad"] * 3, "subset": [""] * 3}
    PREFERENCES.write(columns, out)
    return {"count": 3.0}


def judgments(config: ExhibitConfig, out: Path, *, preferences: Path) -> dict[str, float]:
    said = '{"rationale": "So.", "verdict": 1}'
    rows = [  # prompt, first, second, hint, text, unread
        ("p0", "good", "bad", 0, said, ""),
        ("p0", "bad", "good", 0, said, ""),
        ("p1", "bad", "good", 2, said, ""),
        ("p2", "good", "bad", 0, "", "too long: 900 tokens"),
    ]
    columns = dict(zip(("prompt", "first", "second", "hint", "text", "unread"), zip(*rows, strict=True), strict=True))
    same = {"drawn": [True] * 4, "sample": [0] * 4, "request": ["?"] * 4}
    JUDGMENTS.write({**columns, **same}, out)
    return {"count": 4.0}


def odd(config: ExhibitConfig, out: Path, *, model: Path) -> dict[str, float]:
    (out / "a.txt").write_text(TEXT)
    (out / "b.csv").write_text('name,value\n"two\nlines",1\nshort\n')
    nested = pa.table({"list": [list(range(100))], "bytes": [b"abc"], "nan": [float("nan")], "none": [None]})
    pq.write_table(nested, out / "c.parquet")
    (out / "d.parquet").write_bytes(b"PAR1 torn")
    np.save(out / "e.npy", np.array([[1, np.nan, 3]], np.float16))
    (out / "below").mkdir()
    (out / "below" / "f.json").write_text("{}")
    return {"count": 1.0}


STAGES = {
    "exhibit_responses": Stage("exhibits:responses", 1, ExhibitConfig, "responses"),
    "exhibit_scores": Stage("exhibits:scores", 1, ExhibitConfig, "scores", {"responses": Input("responses")}),
    "exhibit_embeddings": Stage(
        "exhibits:embeddings", 1, ExhibitConfig, "embeddings", {"responses": Input("responses")}
    ),
    "exhibit_model": Stage("exhibits:model", 1, ExhibitConfig, "reward_model"),
    "exhibit_evaluation": Stage(
        "exhibits:evaluation",
        1,
        ExhibitConfig,
        "evaluation",
        {
            "reward_model": Input("reward_model"),
            "embeddings": Input("embeddings", many=True),
            "scores": Input("scores", many=True),
        },
    ),
    "exhibit_preferences": Stage("exhibits:preferences", 1, ExhibitConfig, "preferences"),
    "exhibit_judgments": Stage(
        "exhibits:judgments", 1, ExhibitConfig, "judgments", {"preferences": Input("preferences")}
    ),
    "exhibit_odd": Stage("exhibits:odd", 1, ExhibitConfig, "odd", {"model": Input("reward_model")}),
}
"""The stages, for sweeps with `uses: [exhibits]`."""
