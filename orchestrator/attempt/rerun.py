"""Reruns a committed step in this process, and compares the result with the stored artifact."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from orchestrator.attempt import signals
from orchestrator.attempt.capture import Capture
from orchestrator.attempt.outcome import describe_error
from orchestrator.attempt.request import Request
from orchestrator.attempt.stage_call import call_stage
from orchestrator.code import code_commit
from orchestrator.redact import redact
from orchestrator.store import Store, StoreError, list_files
from orchestrator.texts import plain_text
from orchestrator.types import Artifact, Manifest, Runtime, Scalar, Step
from workers.metric import Undefined


class Verdict(StrEnum):
    """The result of comparing a rerun with the artifact."""

    IDENTICAL = "identical"
    OTHER_BYTES = "same metrics, other bytes"
    DIFFERENT = "different"
    """At least one metric differs."""
    RAISED = "raised"
    """The rerun raised an error."""


@dataclass(frozen=True)
class Rerun:
    """The outcome of rerunning a step."""

    entry: str
    coords: Mapping[str, Scalar]
    stage: str
    key: str
    verdict: Verdict
    metrics: Mapping[str, tuple[float | None, float | None]]
    """Metric -> (stored value, value of the rerun), of those that differ."""
    files: tuple[str, ...]
    """Files that differ, or that one side lacks."""
    error: str | None
    host: str
    """Machine that made the artifact."""
    code_commit: str
    """Commit of the code that made it."""

    def report(self) -> dict[str, Any]:
        """Return the fields for JSON, without the coordinates, which the key implies."""
        return {name: value for name, value in asdict(self).items() if name != "coords"}


def rerun(store: Store, step: Step, runtime: Runtime, manifest: Manifest, tolerance: float = 0) -> Rerun:
    """Run a step into scratch space and compare; nothing is committed, recorded or printed.

    Args:
        store: the store of its inputs.
        step: the step to run.
        runtime: how to run it; time and memory limits are not enforced.
        manifest: the manifest of the stored artifact.
        tolerance: relative difference up to which two metrics count as equal.

    Raises:
        StoreError: the store cannot be read, or its scratch cannot be written.
    """
    # A name that nobody else has: the rerun competes with no driver for the step.
    name, driver = Artifact("rerun", secrets.token_hex(16)), secrets.token_hex(8)
    metrics: Mapping[str, float | Undefined] = {}
    files: Mapping[str, tuple[int, str]] = {}
    error = None
    try:
        with store.lease(name, driver) as lease:
            with signals.watched(), Capture(store) as capture:
                capture.begin(step.address, 0)
                request = Request(step, 0, runtime, store.location, code_commit(), driver)
                metrics = call_stage(request, store, lease.folder)
            files = list_files(lease.folder)
    except StoreError:
        raise
    except BaseException as caught:  # Any error is a finding here: the first run raised none.
        signals.reraise()
        ours = type(caught).__module__.startswith("orchestrator.")
        message = describe_error(caught)
        error = plain_text(redact(message if ours else f"{type(caught).__name__}: {message}"), 2000)
    now = {name: value for name, value in metrics.items() if not isinstance(value, Undefined)}
    names = sorted({*now, *manifest.metrics})
    differing = {
        name: (manifest.metrics.get(name), now.get(name))
        for name in names
        if not _close(manifest.metrics.get(name), now.get(name), tolerance)
    }
    other = tuple(sorted(name for name in {*files, *manifest.files} if files.get(name) != manifest.files.get(name)))
    verdict = Verdict.DIFFERENT if differing else Verdict.OTHER_BYTES if other else Verdict.IDENTICAL
    return Rerun(
        entry=step.entry,
        coords=step.coords,
        stage=step.stage,
        key=step.key,
        verdict=Verdict.RAISED if error else verdict,
        metrics={} if error else differing,
        files=() if error else other,
        error=error,
        host=manifest.host,
        code_commit=manifest.code_commit,
    )


def sample(by_entry: Mapping[str, Collection[int]], count: int, seed: int) -> list[int]:
    """Choose steps at random, as evenly over the entries as possible; return them in order of the plan.

    Args:
        by_entry: entry -> the steps to choose from.
        count: number of steps; fewer if there are not so many.
        seed: random seed; equal seeds choose equal steps.
    """
    generator = random.Random(seed)  # noqa: S311 (the same choice again)
    piles = [generator.sample(sorted(numbers), len(numbers)) for numbers in by_entry.values()]
    generator.shuffle(piles)
    chosen: list[int] = []
    while len(chosen) < count and any(piles):
        chosen += [pile.pop() for pile in piles if pile][: count - len(chosen)]
    return sorted(chosen)


def _close(stored: float | None, now: float | None, tolerance: float) -> bool:
    return stored is not None and now is not None and math.isclose(stored, now, rel_tol=tolerance)
