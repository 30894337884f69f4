"""How long the report of the paper's grid takes, with random numbers in place of results: bench_report.py [FOLDER]."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from dashboards.report.write import write_report
from orchestrator.results.metrics import reported_metrics
from orchestrator.results.table import Results
from orchestrator.session import Session, open_session

FULL = Path(__file__).parents[2] / "sweeps" / "full.yaml"


def made_up(session: Session) -> pa.Table:
    """The results table of a sweep that was not run: best-of-N grows with N, all else is luck around 0.5."""
    table = Results(session.plan, session.store, session.schedule).table()
    random = np.random.default_rng(0)
    better = {"bt_mlp": 0.0, "clf_mlp": 0.1, "clf_lgb": 0.08}
    shift = np.array([better.get(str(model), 0.0) for model in table["reward_model"].to_pylist()])
    shift += 0.1 * np.log10(np.maximum(table["beta"].to_numpy().astype(float), 0.1))
    columns = {"status": pa.array(["succeeded"] * len(table))}
    for name in reported_metrics(table):
        size = float(name.removeprefix("best_of_")) if name.startswith("best_of_") else 10.0
        columns[name] = pa.array((0.5 + shift) * np.log10(size) + 0.05 * random.standard_normal(len(table)))
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        session = open_session(FULL, outputs=place)
        table = made_up(session)
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else place) / "report"
        started, busy = time.monotonic(), time.process_time()
        page = write_report(session, table, folder)
        print(f"{len(table):,} cells: {time.monotonic() - started:.1f} s, {time.process_time() - busy:.1f} s of CPU")
        print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, {len(list(folder.rglob('*.png')))} figures")
