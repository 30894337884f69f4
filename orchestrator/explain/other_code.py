"""Artifacts of people's own stages that have a version, and were made by other code than that of today."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.session import Session
from orchestrator.types import Manifest


@dataclass(frozen=True)
class OtherCode:
    """The committed steps of an entry that were made by other code, though their version is that of today."""

    entry: str
    stage: str
    function: str
    version: int
    steps: int


def made_by_other_code(session: Session) -> list[OtherCode]:
    """Find artifacts whose version says that they are today's, but which other source made.

    It reads the manifests of all committed steps of such stages, and nothing of a sweep without any.

    Raises:
        StoreError: the store cannot be read.
    """
    plan = session.plan
    found: list[OtherCode] = []
    if not plan.spec.available.foreign:
        return found
    for name in plan.entries:
        entry = plan.by_entry[name]
        stages = {each.stage_name: each.stage for each in entry.wired.resolved if each}
        versioned = {each: stage for each, stage in stages.items() if stage.origin and stage.version is not None}
        if not versioned:
            continue
        committed = np.flatnonzero(session.schedule.committed[entry.first : entry.last]) + entry.first
        addresses = [plan.address(number) for number in committed.tolist()]
        manifests = session.store.manifests([each for each in addresses if each.stage in versioned])
        known = [each for each in manifests.values() if isinstance(each, Manifest)]
        for stage_name, stage in versioned.items():
            source = stage.origin.source if stage.origin else None
            count = sum(each.address.stage == stage_name and each.source != source for each in known)
            if count:
                found.append(OtherCode(name, stage_name, stage.function, stage.version or 0, count))
    return found


def format_other_code(session: Session, found: OtherCode) -> str:
    """Describe it in one line, with the remedies."""
    steps = f"{found.steps:,} committed step{'s' if found.steps != 1 else ''}"
    adopt = session.command("adopt", found.stage, "--from-version", str(found.version))
    return (
        f"{found.entry}: {steps} of version {found.version} were made by other code than today's {found.function}; to "
        f"compare: {session.command('verify')}; to make them again: raise the version; if they come out the same then, "
        f"to keep them: {adopt}"
    )
