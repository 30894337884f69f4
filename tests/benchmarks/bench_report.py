"""How long the report of the paper's grid takes, with random numbers as results: bench_report.py [PROMPTS [FOLDER]].

With a number of prompts, 500 for example, every cell has an artifact with that many values of each metric.
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dashboards.report.write import write_report
from orchestrator.results.metrics import reported_metrics
from orchestrator.results.table import Results
from orchestrator.session import Session, open_session
from orchestrator.store import list_files
from orchestrator.types import Manifest
from workers.reward_models.evaluate import PROMPTS

FULL = Path(__file__).parents[2] / "sweeps" / "full.yaml"


def made_up(session: Session) -> pa.Table:
    """The results table of a sweep that was not run: best-of-N grows with N, all else is luck around 0.5."""
    table = Results(session.plan, session.store, session.schedule).table()
    random = np.random.default_rng(0)
    better = {"bt_mlp": 0.0, "clf_mlp": 0.1, "clf_lgb": 0.08}
    shift = np.array([better.get(str(model), 0.0) for model in table["reward_model"].to_pylist()])
    beta = table["beta"].to_numpy().astype(float)
    # What classification gains is lost where there is no noise.
    shift *= 1 - np.log10(np.maximum(beta, 0.1))
    shift += 0.1 * np.log10(np.maximum(beta, 0.1))
    columns = {"status": pa.array(["succeeded"] * len(table))}
    for name in reported_metrics(table):
        size = float(name.removeprefix("best_of_")) if name.startswith("best_of_") else 10.0
        columns[name] = pa.array((0.5 + shift) * np.log10(size) + 0.05 * random.standard_normal(len(table)))
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table


def fill(session: Session, table: pa.Table, prompts: int) -> None:
    """Commit an evaluation of each cell whose values of single prompts have the means of the table."""
    random = np.random.default_rng(1)
    session.store.prepare()
    names = PROMPTS.names[1:]
    means = {name: table[name].to_numpy() for name in names}
    for cell, step in enumerate(session.plan.groups("evaluate").tolist()):
        columns: list[np.ndarray] = [np.arange(prompts)]
        for name in names:
            luck = random.standard_normal(prompts).astype(np.float32)
            columns.append(means[name][cell] + luck - luck.mean())
        metrics = dict(zip(names, (float(each.mean()) for each in columns[1:]), strict=True))
        sink = io.BytesIO()
        arrays = [pa.array(each, kind) for each, kind in zip(columns, PROMPTS.types, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=PROMPTS), sink, compression="zstd")
        with session.store.lease(session.plan.address(step), "bench") as lease:
            (lease.folder / "prompts.parquet").write_bytes(sink.getvalue())
            lease.commit(Manifest(lease.address, "{}", list_files(lease.folder), metrics, 1, 0.0, 0.0, "host", "code"))


if __name__ == "__main__":
    prompts = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with tempfile.TemporaryDirectory() as place:
        session = open_session(FULL, outputs=place)
        table = made_up(session)
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else place) / "report"
        if prompts:
            fill(session, table, prompts)
            session = open_session(FULL, outputs=place)
        for attempt in ("first", "again, with what was read kept"):
            started, busy = time.monotonic(), time.process_time()
            page = write_report(session, table, folder)
            took = f"{time.monotonic() - started:.1f} s, {time.process_time() - busy:.1f} s of CPU"
            print(f"{len(table):,} cells, {prompts:,} prompts, {attempt}: {took}")
        print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, {len(list(folder.rglob('*.png')))} figures")
        print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")
