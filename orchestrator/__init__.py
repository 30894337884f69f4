"""From one YAML to a plan, to Ray tasks, to artifacts, to a results table and MLflow runs.

For notebooks: `orchestrator.open_sweep(file)` plans, runs and reads a sweep; `orchestrator.read_results(folder)` is
the results table of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    import pyarrow as pa

    from orchestrator.notebook import Sweep

__all__ = ["open_sweep", "read_results"]


def open_sweep(
    sweep: str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    only: Iterable[str] = (),
    exclude: Iterable[str] = (),
    outputs: str | Path | None = None,
    store: str | Path | None = None,
) -> Sweep:
    """Open a sweep: its file is read, checked and planned; nothing is run, and nothing is printed.

    Relative paths, those in values too, start from the current folder at this moment, those in a file from its folder.

    Args:
        sweep: the sweep file, or what one could hold, as values: `{"name": "mine", "axes": {"seed": [0, 1]}, …}`.
        overrides: what is changed of it, as after `-s`: `["axes.seed=[0,1]"]`.
        only: the cells with these values only, as after `--only`: `["beta=1,10"]`; several must all hold.
        exclude: likewise, the cells that are left out.
        outputs: the output root; default: `store` in the sweep, else SWEEP_OUTPUTS, else `outputs/`.
        store: the store of artifacts; default: `store/` below the output root.

    Raises:
        SweepError: the sweep cannot be run as written; as a text, one mistake per line, all at once.
    """
    from orchestrator.notebook import open_sweep as opened

    return opened(sweep, overrides, only, exclude, outputs, store)


def read_results(path: str | Path) -> pa.Table:
    """The results table of a sweep, one row per cell, of whatever size: `results.parquet`, or the folder it lies in.

    Raises:
        FileNotFoundError: the sweep has not been run there.
        ValueError: the table was written with another schema version.
    """
    # Only now: to import the package must cost nothing.
    from orchestrator.results import parquet

    return parquet.read_results(path)
