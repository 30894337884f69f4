"""`sweep pin` and `sweep unpin`: names for artifacts that `sweep gc` never deletes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from orchestrator.session import Session
from orchestrator.store import Store
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest


def pin(session: Session, name: str | None) -> dict[str, Any]:
    """Pin what is committed of a sweep; a pin of the same name may only grow.

    Raises:
        SweepError: the name is invalid, nothing is committed, or artifacts of the old pin would be left out.
    """
    name = session.spec.name if name is None else name
    _check_name(name)
    plan = session.plan
    found = {plan.address(number) for number in np.flatnonzero(session.schedule.committed).tolist()}
    if not found:
        message = f"none of its steps is committed in {session.store.location}"
        raise SweepError([Problem(str(session.file), "", message)])
    lost = session.store.pins().get(name, frozenset()) - found
    if lost:
        message = (
            f"holds {len(lost)} artifacts that this sweep does not have now; choose another --name, or remove it "
            f"first: sweep unpin {name}"
        )
        raise SweepError([Problem(f"pin {name}", "", message)])
    session.store.prepare()
    session.store.pin(name, found)
    return {"store": session.store.location, "name": name, "artifacts": len(found)}


def list_pins(store: Store) -> dict[str, dict[str, int]]:
    """Count the artifacts of every pin, and how many of them are there."""
    pins = store.pins()
    committed = store.committed(store.stages())
    return {name: {"artifacts": len(pinned), "there": len(pinned & committed)} for name, pinned in pins.items()}


def unpin(store: Store, name: str) -> None:
    """Remove a pin.

    Raises:
        SweepError: there is none of that name.
    """
    _check_name(name)
    if not store.unpin(name):
        message = f"there is no such pin in {store.location}; {nearest(name, store.pins())}"
        raise SweepError([Problem(f"pin {name}", "", message)])


def _check_name(name: str) -> None:
    """Refuse what cannot be the name of a file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        message = "the name of a pin is made of letters, digits, dots, dashes and underscores"
        raise SweepError([Problem(f"pin {name}", "", message)])
