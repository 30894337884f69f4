"""What is printed of studies: their best trials, how they ended, and which are not finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.console import counted, paragraph, say
from orchestrator.cli.show_results import show_summary
from orchestrator.results.format import format_value
from orchestrator.session import Session

if TYPE_CHECKING:
    from orchestrator.results.best import Found
    from orchestrator.search.trial import Study

#: So many studies are named in a line.
_NAMED = 4


def show_best(session: Session, found: Sequence[Found]) -> None:
    """Print the best trials of some studies, and how much each field matters where that can be told."""
    from orchestrator.results.best import best_table, importances

    show_summary(session, best_table(found))
    several = len(found[0].study.search.objective.metrics) > 1
    of = f" for {found[0].study.search.objective.metrics[0]}" if several else ""
    say(f"how much each field matters{of} ({found[0].study.search.importance.name}):", style="dim")
    for each in found:
        shares = importances(each.study)
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in (shares or {}).items())
        paragraph((each.study.name, "bold"), f": {told or 'unknown'}", indent=2)


def study_line(study: Study) -> str:
    """Say how a study ended: "tuning/bt_mlp: best improvement 0.61 (trial 2 of 4)"."""
    of = f"of {study.budget}"
    metrics = study.search.objective.metrics
    if len(metrics) > 1 and study.front:
        return f"{study.name}: {len(study.front)} best compromises of {', '.join(metrics)} ({study.budget} trials)"
    if study.best and study.best.objectives:
        return f"{study.name}: best {metrics[0]} {format_value(study.best.objectives[0])} (trial {study.best.number} {of})"
    states = Counter(trial.state for trial in study.trials)
    ended = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{study.name}: no best trial ({ended})"


def unfinished_studies(session: Session, studies: Sequence[Study], exit_code: int, missing: bool) -> Iterator[str]:
    """Say which studies are not finished when a run ends, and what becomes of trials that failed.

    Args:
        session: the sweep.
        studies: those that were chosen.
        exit_code: of the run.
        missing: whether cells are missing.
    """
    left = [study for study in studies if not study.finished]
    if left:
        ended = {study.name: sum(trial.state != "running" for trial in study.trials) for study in left}
        some = ", ".join(f"{study.name} ({ended[study.name]} of {study.budget} trials)" for study in left[:_NAMED])
        more = f" and {len(left) - _NAMED:,} more" if len(left) > _NAMED else ""
        are = "1 study is" if len(left) == 1 else f"{len(left):,} studies are"
        yield f"{are} not finished: {some}{more}"
        if not exit_code and session.cells is not None:
            yield "a trial is run only where all of its repetitions are chosen (--only, --exclude, --max-cells)"
    failed = sum(trial.state == "failed" for study in studies for trial in study.trials)
    if failed and missing:
        yield f"{counted(failed, 'trial')} failed, and their samplers were told so; they are tried again all the same"
