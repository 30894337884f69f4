"""`sweep adopt`: take over what older code made under other keys, where today's code makes the same.

Keys change where the version of a stage was raised, a stage without one was edited, or a field left or entered the
identity of a config, and with them those of all steps below. The sweep is planned twice, as it is and as it was; a step
has the same number in both plans.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from orchestrator.sweep.document import parse_value
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest
from orchestrator.types import Artifact, Manifest
from workers.stage import Origin, Stage

#: Artifacts that are published at once.
_THREADS = 8
#: So many of the latest sources of a stage are tried.
_ORIGINS = 8
#: Artifacts that are published between two reports of progress.
_BATCH = 256


@dataclass(frozen=True)
class Former:
    """What is changed since artifacts were made."""

    stage: str | None = None
    """A stage whose version was raised, and …"""
    version: int | None = None
    """… its version then."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Stage that is not this package's and was edited -> where it came from then."""
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Entry -> field that its identity has lost -> the value that it had."""


@dataclass
class Adoption:
    """The artifacts that can be taken over, the proof, and what was taken over."""

    former: Former
    new_version: int | None
    numbers: Sequence[int]
    """The steps whose old artifact is there and whose new one is not."""
    by_entry: dict[str, int]
    """Entry -> number of these steps."""
    reruns: list[Rerun] = field(default_factory=list)
    """The proof: steps of what is changed, run again by today's code."""
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
            "stage": self.former.stage,
            "from_version": self.former.version,
            "to_version": self.new_version,
            "edited": {stage: origin.source for stage, origin in self.former.origins.items()},
            "was": {entry: dict(each) for entry, each in self.former.fields.items()},
            "to_adopt": self.by_entry,
            "proven": self.proven,
            "adopted": self.adopted,
            "damaged": self.damaged,
            "reruns": [each.report() for each in self.reruns],
        }


def read_former(
    session: Session, stage: str | None, version: int | None, was: Iterable[str], edited: bool = False
) -> Former:
    """Read what was changed from the words of the command line.

    Args:
        session: the sweep.
        stage: a stage whose version was raised.
        version: its version then.
        was: `ENTRY.FIELD=VALUE`, the value as YAML.
        edited: whether stages without a version were edited, that are not this package's; what their source was is read
            from the store.

    Raises:
        SweepError: there is no such stage, version or entry, or nothing is named, or nothing was edited.
        StoreError: the store cannot be read.
    """
    plan = session.plan
    problems: list[Problem] = []
    if stage is not None and stage not in plan.stages:
        hint = nearest(stage, sorted(plan.stages))
        problems.append(Problem(f"STAGE {stage}", "", f"the sweep has no step of this stage; {hint}"))
    elif (stage is None) != (version is None):
        problems.append(Problem("--from-version", "", "name the stage whose version was raised, and the one before"))
    elif stage is not None and version == _stages(plan)[stage].version:
        message = f"that is the version of {stage!r} now; raise it in the table of stages, and name the one before"
        problems.append(Problem(f"--from-version {version}", "", message))
    fields: dict[str, dict[str, Any]] = {}
    for text in was:
        path, equals, value = text.partition("=")
        entry, dot, name = path.partition(".")
        if not (equals and dot and name):
            problems.append(Problem(f"--was {text}", "", "write ENTRY.FIELD=VALUE"))
        elif entry not in plan.entries:
            hint = nearest(entry, plan.entries)
            problems.append(Problem(f"--was {text}", "", f"there is no entry {entry!r}; {hint}"))
        else:
            fields.setdefault(entry, {})[name] = parse_value(value)
    origins = former_origins(session) if edited else {}
    if edited and not origins:
        problems.append(Problem("--edited", "", "the store has nothing that other source of your stages made"))
    if stage is None and not fields and not origins and not problems:
        ways = "STAGE --from-version N, --edited, or --was ENTRY.FIELD=VALUE"
        problems.append(Problem("adopt", "", f"name what was changed: {ways}"))
    if problems:
        raise SweepError(problems)
    return Former(stage, version, origins, fields)


def former_origins(session: Session) -> dict[str, Origin]:
    """Return the stages that are not this package's and were edited, with the origin that made what the store has.

    A key depends on the origins of all stages above it: so one after another, each gets that with which most of its
    steps are there, of those that artifacts of its function have. The study may have had no namespace then.

    Raises:
        StoreError: the store cannot be read.
    """
    plan, chosen = session.plan, dict[str, Origin]()
    stages = _stages(plan)
    committed = session.store.committed([name for name, stage in stages.items() if stage.origin])
    for name, stage in stages.items():
        # The latest comes first, and wins where as many steps are there.
        counts = {
            origin: _there(session, name, {**chosen, **({name: origin} if origin else {})}, committed)
            for origin in (None, *_other_origins(session, name, stage))
        }
        best = max(counts, key=lambda origin: counts[origin])
        if best is not None:
            chosen[name] = best
    return chosen


def _there(session: Session, name: str, origins: Mapping[str, Origin], committed: Collection[Artifact]) -> int:
    """Count the steps of a stage that would be there if stages had certain origins."""
    old = build_plan(session.spec.as_it_was({}, origins, {})) if origins else session.plan
    there = np.flatnonzero(old.committed(committed)).tolist()
    return sum(old.address(number).stage == name for number in there)


def _other_origins(session: Session, name: str, stage: Stage) -> list[Origin]:
    """List the origins of artifacts of a stage that the sweep does not ask for, the latest first."""
    finished: dict[Origin, float] = {}
    if stage.origin:
        others = [each for each in session.store.committed([name]) if session.plan.number(each) is None]
        for manifest in session.store.manifests(others).values():
            identity = json.loads(manifest.identity) if isinstance(manifest, Manifest) else {}
            if isinstance(manifest, Manifest) and identity.get("function") == stage.function and "source" in identity:
                origin = replace(stage.origin, namespace=identity["namespace"], source=identity["source"])
                if origin.namespace in ("", stage.origin.namespace):
                    finished[origin] = max(finished.get(origin, 0.0), manifest.finished)
    return sorted(finished, key=lambda origin: finished[origin], reverse=True)[:_ORIGINS]


def adopt(
    session: Session,
    former: Former,
    reruns: int,
    yes: bool,
    progress: Progress = ignore,
    on_rerun: OnRerun = ignore,
) -> Adoption:
    """Take over what older code made, if today's code makes the same.

    Args:
        session: the sweep.
        former: what is changed since.
        reruns: how many steps of what is changed to run again as a proof; fewer if there are not so many.
        yes: publish; otherwise only look and prove.
        progress: called with the number of artifacts published so far, and of all.
        on_rerun: called before a step runs again.

    Raises:
        SweepError: no step can be run again.
        StoreError: the store cannot be read or written.
    """
    new, store, spec = session.plan, session.store, session.spec
    today = _stages(new)[former.stage].version if former.stage is not None else None
    versions = {former.stage: former.version} if former.stage and former.version else {}
    old = build_plan(spec.as_it_was(versions, former.origins, former.fields))
    assert len(old) == len(new), "keys alone change"
    there = old.committed(store.committed(old.stages))
    numbers: list[int] = np.flatnonzero(there & ~session.schedule.committed).tolist()
    by_entry = Counter(new.entry_of(number) for number in numbers)
    adoption = Adoption(former, today, numbers, dict(by_entry))
    if not numbers:
        return adoption
    changed: dict[str, list[int]] = {}
    for number in np.flatnonzero(there).tolist():
        entry = new.entry_of(number)
        if entry not in former.fields and old.address(number).stage not in {former.stage, *former.origins}:
            continue
        if all(there[parent] for parent in old.parents(number)):
            changed.setdefault(entry, []).append(number)
    # Of the old step only its inputs are wanted; it is today's stage that is called.
    steps = [replace(old.step(number), definition=new.stage(number)) for number in sample(changed, reruns, seed=0)]
    known = store.manifests([step.address for step in steps])
    proofs = [(step, found) for step in steps if isinstance(found := known[step.address], Manifest)]
    if not proofs:
        message = (
            "no step of what is changed is there whole and with all its inputs, so none can be run again to prove that "
            f"the output is the same; to recompute everything: {session.command('run')}"
        )
        raise SweepError([Problem("adopt", "", message)])
    store.prepare()
    for position, (step, manifest) in enumerate(proofs, start=1):
        on_rerun(position, len(proofs), step, manifest)
        adoption.reruns.append(rerun(store, step, spec.runtime_of(step.entry, step.coords), manifest))
    if yes and adoption.proven:
        _publish(old, new, store, adoption, progress)
    return adoption


def _stages(plan: Plan) -> dict[str, Stage]:
    """Return the stages of a plan by name."""
    found = (each for entry in plan.by_entry.values() for each in entry.wired.resolved)
    return {each.stage_name: each.stage for each in found if each}


def _publish(old: Plan, new: Plan, store: Store, adoption: Adoption, progress: Progress) -> None:
    """Publish the old files under the new keys."""

    def take_over(number: int) -> str | None:
        before, step = old.address(number), new.step(number)
        known = manifests[before]
        try:
            if not isinstance(known, Manifest):
                raise known
            manifest = replace(known, address=step.address, identity=step.identity, upload=None, adopted=before.key)
            # What it refers to was an input of its step, or an input of one above.
            if known.refers_to and (base := old.number(known.refers_to)) is not None:
                manifest = replace(manifest, refers_to=new.address(base))
            if origin := step.definition.origin:
                manifest = replace(manifest, source=origin.source)
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
