"""The stages that a sweep can name: those of tables, and the functions that its entries name."""

from __future__ import annotations

from orchestrator.plan.checks import kinds_of
from orchestrator.study import StageError
from orchestrator.study.catalogue import bare_function
from orchestrator.sweep.problems import SweepError
from orchestrator.sweep.spec import SweepSpec
from workers.stage import Stage


def named_stages(spec: SweepSpec) -> dict[str, Stage]:
    """Return the stages by the names that they have in a sweep, whatever mistakes there are in what it says of them.

    Raises:
        SweepError: a module that it uses, or a function that it names, cannot be used.
    """
    found: dict[str, Stage] = dict(spec.table)
    problems = [each for each in spec.problems if each.path.startswith("uses")]
    for name, entry in spec.stages.items():
        for kind in kinds_of(spec, name):
            if ":" in kind and kind not in found:
                try:
                    found[kind] = bare_function(spec.available.study, kind, entry.version, entry.metrics)
                except StageError as error:
                    problems.append(spec.problem(("stages", name, "stage"), str(error)))
    if problems:
        raise SweepError(problems)
    return found
