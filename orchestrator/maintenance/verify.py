"""`sweep verify`: check that stored bytes are those that were committed, and that the same code still makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestrator.attempt.rerun import Rerun, Verdict, rerun, sample
from orchestrator.maintenance import OnRerun, Progress, ignore
from orchestrator.plan.columns import Plan
from orchestrator.session import Session
from orchestrator.store import DamagedArtifactError, Store
from orchestrator.types import Artifact, Manifest

#: Artifacts that are read at once; hashing leaves the interpreter, so threads help.
_THREADS = 8
#: Artifacts that are read between two reports of progress.
_BATCH = 256


@dataclass
class Findings:
    """The outcome of a verification."""

    committed: int
    """Committed steps of the chosen cells."""
    asked: int = 0
    """Number of steps that were to run again."""
    checked: int = 0
    """Number of artifacts that were read."""
    size: int = 0
    """Bytes that were read."""
    damaged: dict[int, str] = field(default_factory=dict)
    """Step -> what is wrong with its artifact."""
    seen: dict[int, Manifest] = field(default_factory=dict)
    """Step -> the manifest of its damaged artifact, where that can be read."""
    discarded: bool = False
    reruns: list[Rerun] = field(default_factory=list)
    tolerance: float = 0

    @property
    def fine(self) -> bool:
        """Whether nothing is damaged and nothing differs; with a tolerance, files need not be byte-identical."""
        accepted = {Verdict.IDENTICAL, Verdict.OTHER_BYTES} if self.tolerance else {Verdict.IDENTICAL}
        return not self.damaged and all(each.verdict in accepted for each in self.reruns)

    def report(self, plan: Plan) -> dict[str, Any]:
        """Convert to JSON."""
        damaged = [
            {"entry": plan.entry_of(number), **plan.address(number)._asdict(), "reason": reason}
            for number, reason in sorted(self.damaged.items())
        ]
        return {
            "fine": self.fine,
            "committed": self.committed,
            "asked": self.asked,
            "checked": self.checked,
            "bytes": self.size,
            "damaged": damaged,
            "discarded": self.discarded,
            "reruns": [each.report() for each in self.reruns],
        }


def verify(
    session: Session,
    reruns: int,
    seed: int,
    checksums: bool,
    tolerance: float,
    discard: bool,
    progress: Progress = ignore,
    on_rerun: OnRerun = ignore,
) -> Findings:
    """Check the committed artifacts of the chosen cells, and run some of their steps again.

    Args:
        session: the sweep.
        reruns: how many steps to run again, without those of another interpreter (`runtime.python`).
        seed: random seed for choosing them.
        checksums: whether to read all bytes.
        tolerance: relative difference up to which two metrics are the same.
        discard: set damaged artifacts aside, so that the next run makes them again.
        progress: called with the number of artifacts read so far, and of all.
        on_rerun: called before a step runs again.

    Raises:
        StoreError: the store cannot be read.
    """
    plan, store = session.plan, session.store
    # First, since the records of studies say which cells there are.
    there = session.schedule.committed
    chosen = plan.steps_of(session.cells) & there
    numbers: list[int] = np.flatnonzero(chosen).tolist()
    findings = Findings(len(numbers), reruns, tolerance=tolerance)
    if checksums:
        _read_all(plan, store, numbers, findings, progress)
    there = session.schedule.committed
    there[list(findings.damaged)] = False
    candidates = [number for number in numbers if there[number] and all(there[each] for each in plan.parents(number))]
    by_entry: dict[str, list[int]] = {}
    for number in candidates:
        by_entry.setdefault(plan.entry_of(number), []).append(number)
    sampled = sample(by_entry, reruns, seed)
    if sampled:
        store.prepare()
    for position, number in enumerate(sampled, start=1):
        step = plan.step(number)
        runtime = session.spec.runtime_of(step.entry, step.coords)
        if runtime.python:
            # Here it would run with other libraries than those that made it.
            continue
        manifest = store.manifests([step.address])[step.address]
        if isinstance(manifest, DamagedArtifactError):
            findings.damaged[number] = _reason(manifest)
            continue
        on_rerun(position, len(sampled), step, manifest)
        findings.reruns.append(rerun(store, step, runtime, manifest, tolerance))
    if discard and findings.damaged:
        store.prepare()
        for number in findings.damaged:
            store.discard(plan.address(number), findings.seen.get(number))
        findings.discarded = True
    return findings


def _read_all(plan: Plan, store: Store, numbers: Sequence[int], findings: Findings, progress: Progress) -> None:
    """Compare all bytes with the manifests."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in _batches(numbers):
            addresses = {plan.address(number): number for number in batch}
            manifests = store.manifests(addresses.keys())
            for address, size, reason in pool.map(lambda item: _read(store, *item), manifests.items()):
                findings.checked += 1
                findings.size += size
                if reason:
                    findings.damaged[addresses[address]] = reason
                    manifest = manifests[address]
                    if isinstance(manifest, Manifest):
                        findings.seen[addresses[address]] = manifest
            progress(findings.checked, len(numbers))


def _read(
    store: Store, address: Artifact, manifest: Manifest | DamagedArtifactError
) -> tuple[Artifact, int, str | None]:
    if isinstance(manifest, DamagedArtifactError):
        return address, 0, _reason(manifest)
    found = store.inspect(manifest)
    return address, sum(size for size, _ in manifest.files.values()), _reason(found) if found else None


def _reason(error: DamagedArtifactError) -> str:
    return str(error).removeprefix(f"artifact {error.address.stage}/{error.address.key} is damaged: ")


def _batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), _BATCH):
        yield numbers[start : start + _BATCH]
