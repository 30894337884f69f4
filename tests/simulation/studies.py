"""What must hold of the studies of a simulated search in the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from world import Actor

from orchestrator.search.studies import OpenStudy
from orchestrator.session import Session

if TYPE_CHECKING:
    from history import History


def check_studies(history: History, driver: Actor) -> None:
    """Check that each study has its trials, once each, and that its sampler was told of each once."""
    session: Session = driver.facts["session"]
    rows = pq.read_table(f"{history.setting.root}/outputs/sweeps/simulated/results.parquet").to_pylist()
    demand = history.judge.demand
    for study in session.studies.all:
        values = [each.values["add"] for each in study.history.suggestions.values()]
        calm = history.setting.suggested[: len(values)]
        demand(values == calm, f"{study.name} tries {values}, and a calm one {calm}")
        tells = Counter(each.number for s in study.history.suggestions.values() for each in s.told)
        demand(max(tells.values(), default=1) == 1, f"the sampler of {study.name} is told twice")
        if history.trouble or history.judge.rotten:
            continue
        demand(len(values) == study.budget, f"{study.name} ends with {len(values)} trials")
        for number in range(len(values)):
            made, right = int(session.plan.decided[study.over[number]].sum()), _repetitions(study, number)
            demand(right in (made, None), f"{study.name} repeats trial {number} {made} times, not {right}")
        best = [row["trial"] for row in rows if row["study"] == study.name and row["y"] == 40]
        demand(len(best) == 1, f"{study.name} measures {best} again")


def _repetitions(study: OpenStudy, number: int) -> int | None:
    """Return how often a trial is repeated, by what the pruner said of it; None where that is not said.

    One that the sampler knows as failed is tried again, and over to the pruner.
    """
    told = study.history.told.get(number)
    if told is not None and told.state == "failed":
        return None
    stops = [each.step + 1 for (trial, _), each in study.history.verdicts.items() if trial == number and each.prune]
    return min(stops, default=len(study.over[number]))
