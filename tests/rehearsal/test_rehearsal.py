"""36 cells of `sweeps/full.yaml` as `make rehearse-full` plays all of them, and that its checks see what is wrong."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from findings import check

SCRIPT = Path(__file__).with_name("rehearse.py")


@pytest.mark.ray
def test_cells_of_the_paper_s_grid_go_through_a_job_that_is_stopped_to_a_table_and_mlflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "--few"], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 15 checks passed" in (tmp_path / "results.md").read_text()
    # Of a rehearsal that ends well, it is not known whether it can end badly.
    story = pickle.loads((tmp_path / "story.pickle").read_bytes())
    results = tmp_path / "outputs" / "sweeps" / "full" / "results.parquet"
    table = pq.read_table(results)
    number = table["status"].to_pylist().index("succeeded")
    cell = table["cell_id"][number].as_py()
    elsewhere = pc.equal(table["cell_id"], cell)
    failed = pc.if_else(elsewhere, "failed", table["status"])
    pq.write_table(table.set_column(table.schema.get_field_index("status"), "status", failed), results)
    with closing(sqlite3.connect(tmp_path / "outputs" / "mlflow.db")) as database, database:
        database.execute("DELETE FROM tags WHERE key = 'sweep.cell_id' AND value = ?", (cell,))
    claim = tmp_path / "outputs" / "store" / "claims" / "evaluate" / "left"
    claim.symlink_to("nobody")
    assert {each.what for each in check(story) if not each.right} == {
        "each has succeeded",
        "MLflow has one finished run for each cell, none twice",
        "nobody holds a claim, and nothing is damaged",
    }
    pq.write_table(pa.concat_tables([table, table.slice(number, 1)]), results)
    assert "the table has a row for each cell of full.yaml" in {each.what for each in check(story) if not each.right}
