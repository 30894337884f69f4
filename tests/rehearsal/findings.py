"""What must be true after a rehearsal: of the table, MLflow, the store, the order of finishing, memory, the package."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from full_in_small import FEW
from story import Finding, Story

from orchestrator.cli.job.package import LIMIT
from orchestrator.plan.select import normalised, select
from orchestrator.results.parquet import read_results
from orchestrator.session import open_session

FULL = Path(__file__).parents[2] / "sweeps" / "full.yaml"
#: Bytes: of the driver at any time, and how many more at the end of a submission than a fifth of it in.
DRIVER_LIMIT, DRIVER_GROWTH = 500e6, 100e6
#: Share of the time at which the first cell must be finished, or seconds where that is less: processes must start, and
#: import what they need. Time begins with the first step.
EARLY, STARTING = 0.1, 60.0


def check(story: Story) -> list[Finding]:
    """Look at everything that a rehearsal left."""
    folder = story.outputs / "sweeps" / "full"
    rows = read_results(folder).to_pylist()
    # Of the file as it is: what the overrides change must not reach the coordinates of a cell.
    plan = open_session(FULL).plan
    cells = [_point(plan.spec.axes, cell.coords) for cell in plan.cells]
    chosen = select(plan, FEW, ()) if story.few else np.ones(len(cells), np.bool_)
    wanted = {cells[number] for number in np.flatnonzero(chosen)}
    asked = {row["cell_id"]: row for row in rows if _point(plan.spec.axes, row) in wanted}
    return [
        *_submissions(story),
        *_table([_point(plan.spec.axes, row) for row in rows], cells, asked.values(), len(wanted)),
        *_mlflow(story.outputs / "mlflow.db", asked),
        *_store(story.outputs / "store"),
        *_order(story),
        *_memory(story),
        *_package(story),
    ]


def _point(axes: Iterable[str], coords: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the coordinates as text: named values, as the amounts of data become here, are text in the table."""
    return tuple(normalised(coords[axis]) for axis in axes)


def finishing(story: Story) -> list[tuple[str, float]]:
    """Return (which finished cell, share of the time at which it finished): a cell ends with its evaluation."""
    ended = np.sort([manifest["finished"] for manifest in _manifests(story.outputs / "store", "evaluate")])
    shares = (ended - _begun(story)) / (story.working[-1].ended - _begun(story))
    parts = [(f"{part:.0%}", shares[round(part * len(shares)) - 1]) for part in (0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    return [("the first", float(shares[0])), *((which, float(share)) for which, share in parts)]


def _begun(story: Story) -> float:
    """Return when the first step began."""
    return min(manifest["finished"] - manifest["seconds"] for manifest in _manifests(story.outputs / "store", "*"))


def _submissions(story: Story) -> Iterator[Finding]:
    *stopped, last, again = story.submissions
    # Ray's own words; it gives the driver three seconds, in which not all that it has to say is said.
    cut = [each.stopped and "was stopped" in each.said for each in stopped]
    yield Finding("stopped on the way by `ray job stop`", all(cut), f"{sum(cut)} of {len(stopped)}")
    yield Finding("the same command ends it", last.code == 0, f"exit code {last.code}")
    idle = again.code == 0 and "nothing to do" in again.said
    yield Finding("given once more, it has nothing to do", idle, f"exit code {again.code}")
    errors = sum(each.said.count("Traceback (most recent call last)") for each in story.submissions)
    yield Finding("no traceback is shown", not errors, f"{errors}")


def _table(
    found: list[tuple[str, ...]],
    cells: list[tuple[str, ...]],
    asked: Collection[dict[str, Any]],
    wanted: int,
) -> Iterator[Finding]:
    yield Finding(
        "the table has a row for each cell of full.yaml",
        Counter(found) == Counter(cells),
        f"{len(found):,} rows, {len(set(found)):,} cells",
    )
    status = Counter(row["status"] for row in asked)
    right = status == {"succeeded": wanted}
    yield Finding("each has succeeded", right, ", ".join(f"{count:,} {name}" for name, count in status.items()))
    tries = Counter(row["attempts"] for row in asked)
    seen = ", ".join(f"{count:,} after {number}" for number, count in sorted(tries.items()))
    yield Finding("at the first try", set(tries) == {1}, seen)


def _mlflow(database: Path, rows: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        runs = connection.execute(
            "SELECT tags.value, runs.status, latest_metrics.value FROM runs JOIN tags USING (run_uuid)"
            " LEFT JOIN latest_metrics ON latest_metrics.run_uuid = runs.run_uuid"
            " AND latest_metrics.key = 'improvement'"
            " WHERE tags.key = 'sweep.cell_id' AND runs.lifecycle_stage = 'active'"
        ).fetchall()
    cells = Counter(cell for cell, _, _ in runs)
    right = cells == Counter(rows.keys()) and all(status == "FINISHED" for _, status, _ in runs)
    yield Finding(
        "MLflow has one finished run for each cell, none twice",
        right,
        f"{len(runs):,} runs of {len(cells):,} cells",
    )
    other = sum(cell in rows and value != rows[cell]["improvement"] for cell, _, value in runs)
    yield Finding("whose numbers are those of the table", not other, f"{other} differ")


def _store(store: Path) -> Iterator[Finding]:
    left = {
        name: sum(not path.is_dir() or path.is_symlink() for path in (store / name).rglob("*"))
        for name in ("claims", "damaged")
    }
    seen = ", ".join(f"{count} in {name}/" for name, count in left.items())
    yield Finding("nobody holds a claim, and nothing is damaged", not any(left.values()), seen)
    outcomes = Counter(json.loads(path.read_text())["outcome"] for path in (store / "attempts").rglob("*.json"))
    yield Finding(
        "no attempt failed",
        not outcomes,
        ", ".join(f"{count:,} {name}" for name, count in outcomes.items()) or "none on record",
    )


def _order(story: Story) -> Iterator[Finding]:
    (_, first), *_ = finishing(story)
    seconds = first * (story.working[-1].ended - _begun(story))
    # Of few cells nearly all the time is that of starting.
    early = story.few or first <= EARLY or seconds <= STARTING
    yield Finding("the first cell is finished early", early, f"after {first:.0%} of the time, {seconds:.0f} s")


def _memory(story: Story) -> Iterator[Finding]:
    for submission in story.working:
        taken = [
            look.memory["driver"][1]
            for look in story.looks
            if look.submission == submission.number and look.done is not None and "driver" in look.memory
        ]
        if not taken:
            continue
        early, most = taken[len(taken) // 5], max(taken)
        yield Finding(
            f"the memory of driver {submission.number} is bounded",
            most <= DRIVER_LIMIT and most - early <= DRIVER_GROWTH,
            f"{early / 1e6:.0f} MB, at most {most / 1e6:.0f} MB",
        )


def _package(story: Story) -> Iterator[Finding]:
    files, size = story.package
    packages = len(set(re.findall(r"_ray_pkg_\w+", "\n".join(each.said for each in story.submissions))))
    seen = f"{files} files, {size / 1e6:.2f} MB, {'once' if packages == 1 else f'{packages} packages'}"
    yield Finding("Ray uploads a small package", 0 < size <= LIMIT and packages == 1, seen)


def _manifests(store: Path, stage: str) -> Iterator[dict[str, Any]]:
    for path in (store / "artifacts").glob(f"{stage}/*/manifest.json"):
        yield json.loads(path.read_text())["manifest"]
