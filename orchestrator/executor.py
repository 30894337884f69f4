"""Where the steps of a run are executed: by Ray, or one by one; by the code that they were planned with."""

from __future__ import annotations

from pathlib import Path

from orchestrator.run.executors import Executor
from orchestrator.session import Session
from orchestrator.study import StageError
from orchestrator.sweep.problems import Problem, SweepError


class UnreachableError(Exception):
    """The cluster that is to run the steps does not answer."""


def choose_executor(session: Session, address: str | None, inline: bool, apart: bool) -> Executor:
    """Start what is to execute the steps of a sweep; the arguments are those of `orchestrator.drive.drive`.

    Raises:
        SweepError: the code of the sweep's own stages cannot be copied for the workers.
        UnreachableError: no cluster answers at the address.
    """
    if inline and apart:
        from orchestrator.run.executors.child import ChildExecutor

        return ChildExecutor()
    if inline:
        from orchestrator.run.executors.inline import InlineExecutor

        return InlineExecutor()
    from orchestrator.run.executors.ray_cluster import RayExecutor
    from orchestrator.run.executors.ray_start import RayUnreachableError
    from orchestrator.study.copy import make_copy

    try:
        code = make_copy(session.spec.available, _folders_of(session))
    except StageError as error:
        raise SweepError([Problem(str(session.file), "", str(error))]) from error
    try:
        return RayExecutor(address, code, session.spec.limits.share)
    except RayUnreachableError as error:
        raise UnreachableError(str(error)) from error


def _folders_of(session: Session) -> list[Path]:
    """Return the local folders that the outputs of a sweep are in."""
    places = (session.outputs.local, session.outputs.store)
    return [Path(each) for each in places if "://" not in str(each)]


def refuse_edited_stages(session: Session) -> None:
    """Make sure that the stages that are not this package's are still what the sweep was planned with.

    Raises:
        SweepError: a module of theirs was edited since the sweep was opened.
    """
    try:
        edited = session.spec.available.edited()
    except StageError as error:
        raise SweepError([Problem(str(session.file), "", str(error))]) from error
    if edited:
        message = f"{edited[0]} or a module that it imports was edited since the sweep was opened; open it again"
        raise SweepError([Problem(str(session.file), "", message)])
