"""`sweeps/synthetic.yaml` in bundles on Ray and step by step in one process gives the same table."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from orchestrator.drive import drive
from orchestrator.session import open_session
from orchestrator.types import Manifest

SWEEP = Path(__file__).parents[2] / "sweeps" / "synthetic.yaml"
SMALL = [
    "axes.sampling=[random]", "axes.pairing=[cross]", "axes.beta=[0.5, 1, 3, 10]", "axes.annotations=[100, 200]",
    "axes.seed=[0, 1]", "tracking=false",
]  # fmt: skip


def test_bundles_on_ray_give_the_numbers_of_single_steps(tmp_path: Path, local_ray: None) -> None:
    tables = []
    for name, inline in (("bundled", False), ("single", True)):
        session = open_session(SWEEP, SMALL, outputs=str(tmp_path / name))
        assert drive(session, None, inline, None) == 0
        table = pq.read_table(session.outputs.results)
        tables.append(table.drop_columns(["seconds", "attempts"]).to_pylist())
        manifests = session.store.manifests([session.plan.address(number) for number in range(len(session.plan))])
        assert all(isinstance(each, Manifest) for each in manifests.values())
    assert len(tables[0]) == 48
    assert tables[0] == tables[1]
