"""The best trials of studies, one row each: what `sweep best` shows and what a run of a search ends with."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.results.parquet import value_type
from orchestrator.results.study_watch import chosen_studies
from orchestrator.search.studies import Measurements, OpenStudy, Studies
from orchestrator.search.trial import Study, Trial, TrialState
from orchestrator.sweep.search import Objective, reduced
from orchestrator.texts import few
from orchestrator.types import Scalar

#: What a trial may be, in the order in which it is told.
STATES: tuple[TrialState, ...] = ("complete", "pruned", "failed", "running")
#: Why there is no number at fresh values.
NOT_YET, NOT_ASKED = "not measured yet", "not asked for"


@dataclass(frozen=True)
class Found:
    """A study as it is now, with what its cells cost and what they say at fresh values."""

    study: Study
    seconds: float = 0.0
    """What the finished steps took that belong to its trials, each counted once."""
    gpu_hours: float = 0.0
    """The same in hours, times the GPUs that the sweep file reserves for the steps."""
    fresh: Mapping[int, Sequence[tuple[float, ...]]] = field(default_factory=dict)
    """Trial of the front -> its objectives at each fresh value; trials of which not all are known are left out."""


def find_best(studies: Studies, measurements: Measurements, cells: Mask | None = None) -> list[Found]:
    """Look at the studies of a sweep of which some cell is chosen.

    Args:
        studies: with their records.
        measurements: what became of their cells, manifests and failures included.
        cells: mask of the chosen cells; None for all.
    """
    return [_found(studies.plan, study, measurements) for study in chosen_studies(studies, cells)]


def _found(plan: Plan, study: OpenStudy, measurements: Measurements) -> Found:
    view = study.view(measurements)
    took: dict[int, float] = {}
    for trial in view.trials:
        for cell in (*study.over[trial.number], *study.fresh[trial.number]):
            if plan.decided[cell]:
                took |= measurements.measured(cell).seconds
    gpus = (took[each] * plan.spec.runtime_of(plan.entry_of(each), plan.coords(each)).gpus for each in took)
    fresh: dict[int, Sequence[tuple[float, ...]]] = {}
    metrics = view.search.objective.metrics
    for trial in view.front if view.finished else ():
        cells = [measurements.measured(cell) for cell in study.fresh[trial.number]]
        if cells and all(metric in cell.metrics for cell in cells for metric in metrics):
            fresh[trial.number] = [tuple(cell.metrics[metric] for metric in metrics) for cell in cells]
    return Found(view, math.fsum(took.values()), math.fsum(gpus) / 3600, fresh)


def best_rows(found: Found) -> list[dict[str, Any]]:
    """Return the best trial of a study as JSON, or each of its best compromises; one row without a trial if none is.

    Returns:
        Rows of `study`, `coords`, `finished`, `budget`, `trial` and `values` (None without a best trial), `metrics`
        (metric -> the number that trials were chosen by), `repetitions` (how many it is of), `reduce`, `fresh` (metric
        -> number at fresh values, or None), `fresh_repetitions` (how many that is of, or why there is none), `trials`
        (state -> how many), `seconds`, `gpu_hours`.
    """
    study = found.study
    states = Counter(trial.state for trial in study.trials)
    common = {
        "study": study.name,
        "coords": dict(study.coords),
        "finished": study.finished,
        "budget": study.budget,
        "reduce": reduction(study.search.objective),
    }
    costs = {
        "trials": {state: states[state] for state in STATES},
        "seconds": found.seconds,
        "gpu_hours": found.gpu_hours,
    }
    trials: Sequence[Trial | None] = study.front if len(study.search.objective.metrics) > 1 else (study.best,)
    return [{**common, **_of_trial(found, trial), **costs} for trial in trials or (None,)]


def _of_trial(found: Found, trial: Trial | None) -> dict[str, Any]:
    search = found.study.search
    metrics = search.objective.metrics
    asked = NOT_YET if search.fresh else NOT_ASKED
    if trial is None:
        nothing = {"trial": None, "values": None, "metrics": None, "repetitions": 0}
        return {**nothing, "fresh": None, "fresh_repetitions": asked}
    again = found.fresh.get(trial.number)
    return {
        "trial": trial.number,
        "values": dict(trial.values),
        "metrics": dict(zip(metrics, trial.objectives or (), strict=True)),
        "repetitions": len(trial.repetitions),
        "fresh": _reduced(search.objective, again) if again else None,
        "fresh_repetitions": len(again) if again else asked,
    }


def _reduced(objective: Objective, known: Sequence[tuple[float, ...]]) -> dict[str, float]:
    return {
        metric: reduced([each[place] for each in known], objective.reduce, better)
        for place, (metric, better) in enumerate(zip(objective.metrics, objective.directions, strict=True))
    }


def reduction(objective: Objective) -> str:
    """Name what is taken of the repetitions: "mean", "0.9 quantile"."""
    reduce = objective.reduce
    return reduce if isinstance(reduce, str) else f"{reduce.quantile:g} quantile"


def importances(study: Study) -> dict[str, float] | None:
    """Return the share of each field in how the objective varies, the largest first; None where nobody can tell."""
    if not study.search.fields:
        return None
    # It imports Optuna.
    from orchestrator.search.figures import importances as told

    return told(study)


def told(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the rows of `best_rows` of several studies, with the `importances` of their fields, as JSON."""
    return [row | {"importances": importances(each.study)} for each in found for row in best_rows(each)]


def best_table(found: Sequence[Found]) -> pa.Table:
    """Make a table of `best_rows` of some studies of one sweep, one column for each field and metric."""
    rows = [(row, each.study) for each in found for row in best_rows(each)]
    search = found[0].study.search
    columns: dict[str, Sequence[Any] | pa.Array] = {
        "study": pa.array([row["study"] for row, _ in rows], pa.string()),
        "state": pa.array([_state(row) for row, _ in rows], pa.string()),
        "trial": pa.array([row["trial"] for row, _ in rows], pa.int64()),
    }
    taken = {"study", "state", "trial", "repetitions", "fresh", *STATES, "seconds", "gpu_hours"}
    for name, each in search.fields.items():
        values: list[Scalar | None] = [(row["values"] or {}).get(name) for row, _ in rows]
        columns[f"value of {name}" if name in taken else name] = pa.array(values, value_type(each))
    metrics = search.objective.metrics
    for metric in metrics:
        label = metric if metric not in columns and metric not in taken else f"metric {metric}"
        columns[label] = pa.array([(row["metrics"] or {}).get(metric) for row, _ in rows], pa.float64())
        columns[f"{label} fresh"] = pa.array([(row["fresh"] or {}).get(metric) for row, _ in rows], pa.float64())
    columns["repetitions"] = pa.array([_of(row, row["repetitions"] or None) for row, _ in rows], pa.string())
    columns["fresh"] = pa.array([_of(row, row["fresh_repetitions"]) for row, _ in rows], pa.string())
    for state in STATES:
        columns[state] = pa.array([row["trials"][state] for row, _ in rows], pa.int64())
    columns["seconds"] = pa.array([row["seconds"] for row, _ in rows], pa.float64())
    if any(row["gpu_hours"] for row, _ in rows):
        columns["gpu_hours"] = pa.array([row["gpu_hours"] for row, _ in rows], pa.float64())
    several = len(metrics) > 1
    what = "the best compromises of each study: no other trial is better in all of" if several else "the best trial of"
    title = f"{what} {', '.join(metrics)}" if several else f"{what} each study, by {metrics[0]}"
    facts = {"title": title, "keys": str(3 if several else 1), "left_out": json.dumps(best_notes(found))}
    return pa.table(columns).replace_schema_metadata(facts)


def _state(row: Mapping[str, Any]) -> str:
    ended = sum(count for state, count in row["trials"].items() if state != "running")
    return "finished" if row["finished"] else f"{ended} of {row['budget']} trials"


def _of(row: Mapping[str, Any], count: int | str | None) -> str | None:
    return f"{row['reduce']} of {count}" if isinstance(count, int) else count


def best_notes(found: Sequence[Found]) -> list[str]:
    """Return what is to be known of best trials: that their numbers flatter them, and where there is none."""
    search = found[0].study.search
    notes = []
    most = max(each.study.budget for each in found)
    if not search.fresh and most > 1 and any(each.study.front for each in found):
        axis = next(iter(search.objective.over), None)
        remedy = f"`fresh: {{{axis}: […]}}` measures it again at other values"
        without = "repeat trials (`objective: {over: {seed: […]}}`), so that `fresh` can measure the best one again"
        notes.append(f"the best of {most} trials is flattered by the choice; {remedy if axis else without}")
    lacking = [each.study for each in found if each.study.trials and not each.study.front]
    if lacking:
        bound = " and keeps to the constraints" if search.constraints else ""
        notes.append(f"no trial is complete{bound} in {few([study.name for study in lacking])}")
    return notes
