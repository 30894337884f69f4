"""What the fault tests share: a sweep that takes a while, and the check that nothing of it is lost or there twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_sweep

from orchestrator.drive import drive
from orchestrator.session import open_session

#: What must be the same whatever happened on the way.
COLUMNS = ["cell_id", "x", "y", "kind", "status", "total", "key"]

#: 600 steps of twenty milliseconds.
LONG = (
    toy_sweep.SWEEP.replace("[1, 2, 3]", str(list(range(100))))
    .replace("config: {value: $x}", "config: {value: $x, behaviour: nap}")
    .replace("inputs: {number: source}}", "inputs: {number: source}, config: {behaviour: nap}}")
    .replace("behaviour: work", "behaviour: nap")
)


def calm_table(folder: Path, text: str) -> pa.Table:
    """The table of a sweep when nothing goes wrong."""
    folder.mkdir()
    session = open_session(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TOY_TRACE", raising=False)
        assert drive(session, None, True, None) == 0
    return pq.read_table(session.outputs.results, columns=COLUMNS)


def check_nothing_is_lost_or_twice(folder: Path, calm: pa.Table) -> None:
    """The sweep in `folder` is finished, its table is that of a calm run, and every step was committed once."""
    session = open_session(folder / "toy.yaml", outputs=str(folder / "out"))
    assert session.schedule.done
    table = pq.read_table(session.outputs.results, columns=COLUMNS)
    assert table.num_rows == len(set(table["cell_id"].to_pylist())) == calm.num_rows
    assert table.equals(calm)
    store = Path(session.outputs.store)
    # An artifact can be there only once; nothing of it may be set aside either.
    assert len(list((store / "artifacts").glob("*/*"))) == len(session.plan)
    assert not list((store / "claims").rglob("*/*"))


def with_ray(command: list[str]) -> list[str]:
    """The command with a local Ray whose workers know the toy stages."""
    python, option, code, *rest = command
    return [python, option, code.replace("import toy;", "import toy; toy.connect();"), *rest]
