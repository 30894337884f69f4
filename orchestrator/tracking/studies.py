"""What MLflow shows of studies beside the runs of their cells: the best trial, and Optuna's figures."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.keys import digest
from orchestrator.search.trial import Study
from orchestrator.tracking.runs import STUDY as NAME
from orchestrator.tracking.runs import Projection


@dataclass(frozen=True)
class StudyRun:
    """What the run of a study has."""

    group: tuple[str, ...]
    """Which run it is (`Projection.study_group`)."""
    metrics: dict[str, float]
    tags: dict[str, str]
    files: tuple[str, ...] = ()
    """Local files."""


def study_runs(projection: Projection, studies: Sequence[Study], figures: Path | None = None) -> tuple[StudyRun, ...]:
    """Say what the runs of studies have; those without a trial have no run.

    Args:
        projection: the cells of the sweep's plan as runs.
        studies: all of the plan, in its order.
        figures: the folder of their figures (`draw`), as far as they are there; None for none.
    """
    found = []
    for position, study in enumerate(studies):
        if not study.trials:
            continue
        files = sorted((figures / _drawn(study)).glob("*.png")) if figures else []
        group = projection.study_group(position)
        found.append(StudyRun(group, _metrics(study), _tags(study), tuple(str(each.absolute()) for each in files)))
    return tuple(found)


def draw(study: Study, folder: Path) -> None:
    """Draw how a study came about and which of its fields matter, unless that was drawn of the same trials.

    Args:
        study: the study.
        folder: that of the figures of all studies; those of this one as it was before are deleted.

    Raises:
        OSError: a figure cannot be written.
    """
    target = folder / _drawn(study)
    if target.is_dir():
        return
    # Not before it is needed: it imports Optuna and, to draw, matplotlib.
    from orchestrator.search.figures import history_png, importance_png

    drawn = {"history.png": history_png(study), "importance.png": importance_png(study)}
    begun = folder / f"begun-{target.name}"
    begun.mkdir(parents=True, exist_ok=True)
    for name, content in drawn.items():
        if content is not None:
            (begun / name).write_bytes(content)
    begun.replace(target)
    for old in folder.glob(f"{study.id}-*"):
        if old != target:
            shutil.rmtree(old)


def _drawn(study: Study) -> str:
    """Name the folder of a study's figures: another one for other trials, so that nothing is drawn twice."""
    trials = [[each.number, dict(each.values), each.state, [*map(str, each.objectives or ())]] for each in study.trials]
    importance = study.search.importance.model_dump(mode="json")
    return f"{study.id}-{digest([study.name, trials, importance])[:16]}"


def _metrics(study: Study) -> dict[str, float]:
    """Count trials by what became of them, and say how good the best one is."""
    counts = Counter(each.state for each in study.trials)
    found = {"trials": float(len(study.trials)), "trials_planned": float(study.budget)}
    found |= {f"trials_{state}": float(counts[state]) for state in ("complete", "pruned", "failed", "running")}
    metrics, best = study.search.objective.metrics, study.best
    if best and best.objectives:
        found["best_trial"] = float(best.number)
        found |= {f"best_{name}": value for name, value in zip(metrics, best.objectives, strict=True)}
    elif len(metrics) > 1:
        found["trials_on_front"] = float(len(study.front))
    if study.fresh and best:
        # MLflow forgets no number, so it is said of which trial this is.
        found["fresh_trial"] = float(best.number)
        found |= {f"fresh_{name}": value for name, value in zip(metrics, study.fresh, strict=True)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _tags(study: Study) -> dict[str, str]:
    """Return the coordinates of a study, and the values of its best trial or trials."""
    tags = {NAME: study.name, "sweep.study_id": study.id}
    tags |= {f"sweep.axis.{axis}": str(label) for axis, label in study.coords.items()}
    shown = (study.best,) if study.best else study.front
    for name in study.search.fields:
        values = [str(trial.values[name]) for trial in shown if name in trial.values]
        if shown:
            # MLflow forgets no tag either: what the best trial does not have is empty.
            tags[f"sweep.best.{name}"] = ", ".join(values)[:5000]
    return tags
