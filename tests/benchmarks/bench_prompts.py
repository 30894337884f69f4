"""How long metrics by single prompts take to read, of made-up artifacts: bench_prompts.py [CELLS PROMPTS [FOLDER]].

Without numbers, those of the paper's grid: 12,960 cells and 2,273 prompts, which take 1 GB in the folder.
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis.per_prompt import PerPrompt
from orchestrator.session import Session, open_session
from orchestrator.store import list_files
from orchestrator.types import Manifest
from workers.reward_models.evaluate import PROMPTS

SWEEP = """\
name: prompts
question: How long does it take to read single prompts?
axes: {{arm: {arms}, seed: {seeds}}}
stages:
  world: {{stage: world_rewards, config: {{split: test, prompts: 4, responses: 2}}}}
  embedded: {{stage: world_embeddings, config: {{split: test, prompts: 4, responses: 2}}}}
  evaluate:
    stage: evaluate
    inputs: {{reward_model: fit, embeddings: embedded, scores: world}}
    config: {{best_of: [2], seed: $seed, repeats: $arm}}
  annotate: {{inputs: {{scores: world}}, config: {{sampling: random, beta: 1, annotations: 4, seed: 0}}}}
  fit: {{stage: fit_linear, inputs: {{annotations: annotate, embeddings: embedded}}, config: {{loss: bt}}}}
results: [evaluate]
tracking: false
"""


def fill(session: Session, prompts: int) -> None:
    """Commit an evaluation of each cell, of numbers that nobody measured."""
    random = np.random.default_rng(0)
    means = random.normal(size=prompts)
    session.store.prepare()
    for step in range(len(session.plan)):
        if session.plan.entry_of(step) != "evaluate":
            continue
        address = session.plan.address(step)
        spearman = random.normal(size=prompts)
        columns = [
            np.arange(prompts),
            means,
            random.normal(size=prompts).astype(np.float32) - means,
            random.integers(1, 501, prompts) / 500,
            spearman,
        ]
        metrics = dict(zip(PROMPTS.names[1:], (float(each.mean()) for each in columns[1:]), strict=True))
        sink = io.BytesIO()
        arrays = [pa.array(each, kind) for each, kind in zip(columns, PROMPTS.types, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=PROMPTS), sink, compression="zstd")
        with session.store.lease(address, "bench") as lease:
            (lease.folder / "prompts.parquet").write_bytes(sink.getvalue())
            files = list_files(lease.folder)
            lease.commit(Manifest(address, "{}", files, metrics, 1, 0.0, 0.0, "host", "code"))


def read(session: Session, metric: str) -> None:
    started, busy = time.monotonic(), time.process_time()
    looked = replace(session)
    reader = PerPrompt(looked, [("evaluate", "prompts.parquet")])
    opened = time.monotonic() - started
    found = reader.read(metric, range(len(session.plan.points)))
    shapes = ", ".join(str(each.values.shape) for each in found.by_set)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{metric}: {shapes} in {time.monotonic() - started:.1f} s ({opened:.1f} s to open),"
        f" {time.process_time() - busy:.1f} s of CPU, at most {peak:.2f} GB so far",
        *found.problems,
        sep="\n  ",
    )


if __name__ == "__main__":
    cells, prompts = (int(each) for each in (sys.argv[1:3] or ("12960", "2273")))
    with tempfile.TemporaryDirectory(dir=sys.argv[3] if len(sys.argv) > 3 else None) as place:
        seeds = 5
        text = SWEEP.format(arms=list(range(1, cells // seeds + 1)), seeds=list(range(seeds)))
        (Path(place) / "sweep.yaml").write_text(text)
        session = open_session(Path(place) / "sweep.yaml", outputs=f"{place}/out")
        started = time.monotonic()
        fill(session, prompts)
        print(f"{len(session.plan.points):,} artifacts made in {time.monotonic() - started:.0f} s")
        for metric in ("improvement", "improvement", "spearman", "quantile"):
            read(session, metric)
        kept = list(session.outputs.prompts.rglob("*.parquet"))
        print(f"{len(kept)} files of cache, {sum(path.stat().st_size for path in kept) / 1e6:.0f} MB")
