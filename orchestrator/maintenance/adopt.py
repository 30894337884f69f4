"""`sweep adopt`: take over what the old version of a stage made, where the new version makes the same.

The keys of all steps below the stage change with it. The sweep is planned twice, as it is and with the old version in
the table of stages; a step has the same number in both plans.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from orchestrator.attempt.rerun import Rerun, Verdict, rerun, sample
from orchestrator.maintenance import OnRerun, Progress, ignore
from orchestrator.plan.build import build_plan
from orchestrator.plan.columns import Plan
from orchestrator.session import Session
from orchestrator.store import DamagedArtifactError, Store
from orchestrator.sweep.problems import Problem, SweepError, nearest
from orchestrator.types import Manifest

#: Artifacts that are published at once.
_THREADS = 8
#: Artifacts that are published between two reports of progress.
_BATCH = 256


@dataclass
class Adoption:
    """The artifacts that can be taken over, the proof, and what was taken over."""

    stage: str
    old_version: int
    new_version: int
    numbers: Sequence[int]
    """The steps whose old artifact is there and whose new one is not."""
    by_entry: dict[str, int]
    """Entry -> number of these steps."""
    reruns: list[Rerun] = field(default_factory=list)
    """The proof: steps of the stage, run again by today's code."""
    adopted: int = 0
    damaged: list[str] = field(default_factory=list)
    """Old artifacts that were left where they are; the next run makes these anew."""

    @property
    def proven(self) -> bool:
        """Whether every step that was run again gave the same files and metrics."""
        return all(each.verdict is Verdict.IDENTICAL for each in self.reruns)

    def report(self) -> dict[str, Any]:
        """Convert to JSON."""
        return {
            "stage": self.stage,
            "from_version": self.old_version,
            "to_version": self.new_version,
            "to_adopt": self.by_entry,
            "proven": self.proven,
            "adopted": self.adopted,
            "damaged": self.damaged,
            "reruns": [each.report() for each in self.reruns],
        }


def adopt(
    session: Session,
    stage: str,
    old_version: int,
    reruns: int,
    yes: bool,
    progress: Progress = ignore,
    on_rerun: OnRerun = ignore,
) -> Adoption:
    """Take over what an older version of a stage made, if today's code makes the same.

    Args:
        session: the sweep.
        stage: the stage whose version was raised.
        old_version: its version then.
        reruns: how many of its steps to run again as a proof; fewer if there are not so many.
        yes: publish; otherwise only look and prove.
        progress: called with the number of artifacts published so far, and of all.
        on_rerun: called before a step runs again.

    Raises:
        SweepError: there is no such stage or version, or no step of it can be run again.
        StoreError: the store cannot be read or written.
    """
    new, store = session.plan, session.store
    _check(new, stage, old_version)
    today = session.spec.table[stage]
    old = build_plan(session.spec.with_stage(stage, replace(today, version=old_version)))
    assert len(old) == len(new), "a version changes keys only"
    there = old.committed(store.committed(old.stages))
    numbers: list[int] = np.flatnonzero(there & ~session.schedule.committed).tolist()
    by_entry = Counter(new.entry_of(number) for number in numbers)
    adoption = Adoption(stage, old_version, today.version, numbers, dict(by_entry))
    if not numbers:
        return adoption
    of_stage: dict[str, list[int]] = {}
    for number in np.flatnonzero(there).tolist():
        if old.address(number).stage == stage and all(there[parent] for parent in old.parents(number)):
            of_stage.setdefault(new.entry_of(number), []).append(number)
    sampled = sample(of_stage, reruns, seed=0)
    steps = [old.step(number) for number in sampled]
    known = store.manifests([step.address for step in steps])
    proofs = [(step, found) for step in steps if isinstance(found := known[step.address], Manifest)]
    if not proofs:
        message = (
            f"no step of version {old_version} is there whole and with all its inputs, so none can be run again to "
            f"prove that the output is the same; to recompute everything: {session.command('run')}"
        )
        raise SweepError([Problem(f"stage {stage}", "", message)])
    store.prepare()
    for position, (step, manifest) in enumerate(proofs, start=1):
        on_rerun(position, len(proofs), step, manifest)
        runtime = session.spec.runtime_of(step.entry, step.coords)
        adoption.reruns.append(rerun(store, step, runtime, manifest))
    if yes and adoption.proven:
        _publish(old, new, store, adoption, progress)
    return adoption


def _check(plan: Plan, stage: str, old_version: int) -> None:
    if stage not in plan.stages:
        hint = nearest(stage, sorted(plan.stages))
        raise SweepError([Problem(f"STAGE {stage}", "", f"the sweep has no step of this stage; {hint}")])
    if old_version == plan.spec.table[stage].version:
        message = f"that is the version of {stage!r} now; raise it in the table of stages, and name the one before"
        raise SweepError([Problem(f"--from-version {old_version}", "", message)])


def _publish(old: Plan, new: Plan, store: Store, adoption: Adoption, progress: Progress) -> None:
    """Publish the old files under the new keys."""

    def take_over(number: int) -> str | None:
        before, step = old.address(number), new.step(number)
        known = manifests[before]
        try:
            if not isinstance(known, Manifest):
                raise known
            manifest = replace(known, address=step.address, identity=step.identity, upload=None, adopted=before.key)
            store.adopt(before, manifest)
        except DamagedArtifactError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(adoption.numbers), _BATCH):
            batch = adoption.numbers[start : start + _BATCH]
            manifests = store.manifests([old.address(number) for number in batch])
            answers = dict(zip(batch, pool.map(take_over, batch), strict=True))
            adoption.damaged += [answer for answer in answers.values() if answer]
            done = [new.address(number) for number, answer in answers.items() if not answer]
            store.flush(done)
            adoption.adopted += len(done)
            progress(start + len(batch), len(adoption.numbers))
