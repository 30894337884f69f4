"""From one YAML to a plan, to Ray tasks, to artifacts, to a results table and MLflow runs.

For notebooks: `orchestrator.read_results(folder)` is the results table of a sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

__all__ = ["read_results"]


def read_results(path: str | Path) -> pa.Table:
    """The results table of a sweep, one row per cell, of whatever size: `results.parquet`, or the folder it lies in.

    Raises:
        FileNotFoundError: the sweep has not been run there.
        ValueError: the table was written with another schema version.
    """
    # Only now: to import the package must cost nothing.
    from orchestrator.results import parquet

    return parquet.read_results(path)
