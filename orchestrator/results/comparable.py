"""The rows of a search that can be compared: those of the best trial of each study.

Trial 3 of one study has nothing in common with trial 3 of another, and a mean over trials is one over whatever the
sampler tried. What is tuned is judged by the best trial of its study, at values that it was not chosen by.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from orchestrator.search.trial import Study
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import few

#: The column of the number of the trial in comparable rows, where it is no axis.
BEST_TRIAL = "best_trial"


def comparable_rows(table: pa.Table, studies: Sequence[Study]) -> tuple[pa.Table, list[str]]:
    """Reduce the results table of a search to the best trials of its finished studies, at their fresh values.

    Without `fresh` in the search, at the repetitions that they were chosen by.

    Args:
        table: results table of the sweep, or some rows of it.
        studies: those that the rows may be of, as they are now.

    Returns:
        the rows, without the axis of trials, and sentences on what to beware of; the table itself and none where there
        are no studies.

    Raises:
        SweepError: there is nothing to compare: no study is finished, or several objectives know no best trial.
    """
    if not studies:
        return table, []
    search = studies[0].search
    if len(search.objective.metrics) > 1:
        message = (
            f"with several objectives ({', '.join(search.objective.metrics)}) a study has no best trial that could be "
            "compared; `sweep best` shows the best compromises, `sweep results --cells` and `--sql` all cells"
        )
        raise SweepError([Problem("search", "", message)])
    best = {study.name: study.best.number for study in studies if study.finished and study.best}
    meant = search.again
    names, trials = table["study"].to_pylist(), table[TRIAL].to_pylist()
    kept = [best.get(name) == trial for name, trial in zip(names, trials, strict=True)]
    for axis, values in meant.items():
        kept = [keep and label in values for keep, label in zip(kept, table[axis].to_pylist(), strict=True)]
    rows = table.filter(pa.array(kept, pa.bool_()))
    found = set(rows["study"].to_pylist())
    lacking = [study.name for study in studies if study.name not in found]
    if not rows.num_rows:
        where = " at fresh values" if search.fresh else ""
        message = f"no study is finished and has its best trial measured{where}; `sweep run` goes on"
        raise SweepError([Problem("search", "", f"{message}, `sweep best` shows where the studies are")])
    return _without_trials(rows), [*_warnings(search.fresh != {}, studies), *_lacking(lacking, len(studies))]


def _without_trials(rows: pa.Table) -> pa.Table:
    facts = dict(rows.schema.metadata)
    axes = json.loads(facts[b"axes"])
    del axes[TRIAL]
    facts[b"axes"] = json.dumps(axes).encode()
    names = [BEST_TRIAL if name == TRIAL else name for name in rows.column_names]
    return rows.rename_columns(names).replace_schema_metadata(facts)


def _warnings(fresh: bool, studies: Sequence[Study]) -> list[str]:
    most = max(study.budget for study in studies)
    if fresh:
        return ["of each study only the best trial counts, at its fresh values"]
    if most == 1:
        return []
    return [
        f"of each study only the best trial counts, at the repetitions that it was chosen by: the best of {most} is "
        "flattered by the choice; `fresh` in the search measures it again"
    ]


def _lacking(names: Sequence[str], of: int) -> list[str]:
    if not names:
        return []
    return [f"{len(names):,} of {of:,} studies have no best trial yet: {few(names)}"]


def refuse_trials(spec: SweepSpec, axes: Sequence[str]) -> None:
    """Refuse to compare along, or within, the trials of a search or a field of its space.

    Raises:
        SweepError: one of the axes is one of these.
    """
    if spec.searched is None:
        return
    problems = []
    for axis in axes:
        if axis == TRIAL:
            why = "trials of different studies have nothing in common"
        elif axis in spec.searched.fields:
            why = "its values were chosen by a sampler, which prefers good ones"
        else:
            continue
        message = f"{why}; `sweep best` shows the best trial of each study, and how much each field matters"
        problems.append(Problem("AXIS=V1,V2", "", f"{axis!r} is not compared: {message}"))
    if problems:
        raise SweepError(problems)
