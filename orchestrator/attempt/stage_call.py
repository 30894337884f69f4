"""Calls a stage: verified inputs in, checked metrics out."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.attempt.outage import OUTAGE
from orchestrator.attempt.outcome import DamagedInputsError, RejectedError, describe_error
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.attempt.seal import sealed
from orchestrator.redact import redact
from orchestrator.store import DamagedArtifactError, Store, StoreError
from orchestrator.study.modules import study_of
from orchestrator.texts import plain_text
from orchestrator.types import RESERVED_NAMES, Artifact, Step
from workers.artifacts import place, referred
from workers.checkpoints import NONE, Checkpoints
from workers.config import Config
from workers.metric import Metric, Undefined
from workers.stage import Origin


def call_stage(
    request: Request,
    store: Store,
    out: Path,
    fetched: dict[Artifact, Path] | None = None,
    guard: Callable[[Request], AbstractContextManager[object]] = nullcontext,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float | Undefined]:
    """Call the stage function on verified inputs and check its metrics.

    Args:
        request: the step, and how to run it.
        store: where its inputs are.
        out: the folder that the stage writes into.
        fetched: artifact -> folder of inputs that were verified already; those that are fetched are added.
        guard: context manager entered around the work of the stage, for time limits.
        checkpoints: those of the step, for a stage that keeps some.

    Returns:
        metric -> its value, of all declared metrics.

    Raises:
        RejectedError: a metric is missing, undeclared, not finite, or undefined and not nullable.
        DamagedInputsError: inputs are incomplete or altered.
        CodeChangedError: the code on disk is not the driver's.
    """
    config = config_of(request)
    inputs = input_folders(request, store, {} if fetched is None else fetched)
    definition, batch_size = request.step.definition, request.runtime.batch_size
    options: dict[str, Any] = {"batch_size": batch_size} if definition.batches and batch_size else {}
    if definition.checkpoints:
        options["checkpoints"] = checkpoints
    with guard(request):
        function = prepared_function(definition.function, request)
        with sealed():
            returned = definition.call(function, config, out, {**inputs, **options})
        metrics = check_metrics(returned, config.declared(), request.step)
        keep_declared_files(out, definition.files)
    return metrics


def config_of(request: Request) -> Config:
    """Return the config that the stage of a request is called with."""
    return request.step.definition.config.model_validate(request.step.config)


def input_folders(request: Request, store: Store, fetched: dict[Artifact, Path]) -> dict[str, Path | list[Path]]:
    """Fetch the artifacts that a step reads; return their verified folders by input. What is damaged is set aside.

    What these refer to is fetched as well, and the stage can find it (`workers.artifacts`).

    Args:
        request: the step.
        store: where the artifacts are.
        fetched: artifact -> folder of inputs that were verified already; those that are fetched are added.

    Raises:
        DamagedInputsError: some are incomplete or altered.
    """
    step = request.step
    inputs: dict[str, Path | list[Path]] = {}
    damage: list[DamagedArtifactError] = []
    for name, artifacts in step.inputs.items():
        folders = []
        for artifact in artifacts:
            try:
                if artifact not in fetched:
                    _fetch(artifact, store, fetched)
                    _fetch_referred(artifact, store, fetched)
                folders.append(fetched[artifact])
            except DamagedArtifactError as error:
                damage.append(error)
                # The next step of the bundle finds it, too, and what it refers to.
                fetched.pop(artifact, None)
        inputs[name] = folders if step.definition.inputs[name].many else (folders or [Path()])[0]
    if damage:
        # At once: another driver may make them again before ours hears of it. What cannot be set aside now is found
        # again by its next reader.
        for found in damage:
            with contextlib.suppress(StoreError):
                store.discard(found.address, found.manifest)
        # All of them, so that they are recomputed together.
        raise DamagedInputsError(damage)
    place(fetched)
    return inputs


def _fetch(artifact: Artifact, store: Store, fetched: dict[Artifact, Path]) -> Path:
    folder = fetched.get(artifact)
    if folder is None:
        folder = fetched[artifact] = OUTAGE.endure(partial(store.fetch, artifact))
    return folder


def _fetch_referred(artifact: Artifact, store: Store, fetched: dict[Artifact, Path]) -> None:
    """Fetch the artifact that a fetched one refers to, and what that refers to, if there is one."""
    named = referred(fetched[artifact])
    if named is None or Artifact(*named) in fetched:
        return
    manifest = OUTAGE.endure(lambda: store.manifests([artifact])[artifact])
    if isinstance(manifest, DamagedArtifactError):
        raise manifest
    if manifest.refers_to:
        folder = _fetch(manifest.refers_to, store, fetched)
        _fetch_referred(manifest.refers_to, store, fetched)
        # Of an adopted artifact the file has the key of then.
        fetched[Artifact(*named)] = folder


def stage_source(step: Step) -> str:
    """Return the place of a stage's function, as `file:line`."""
    function = inspect.unwrap(_function(step.definition.function, step.definition.origin))
    return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"


def prepared_function(name: str, request: Request) -> Callable[..., Any]:
    """Load a function of a stage, "module:name", and prepare this process for the request.

    Raises:
        CodeChangedError: the code on disk is not the driver's.
    """
    if request.step.definition.origin:
        # Noticed before it runs, even if it is not imported yet.
        PROCESS.prepare(request)
    function = _function(name, request.step.definition.origin)
    PROCESS.prepare(request)
    return function


def _function(name: str, origin: Origin | None) -> Callable[..., Any]:
    study = study_of(origin) if origin else None
    if study:
        study.activate()
    # TRL and the Hub libraries report usage when they are imported; the owner of a cluster has not agreed to that.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if study:
        study.remember()
    return found  # type: ignore[no-any-return]


def check_metrics(metrics: object, declared: Mapping[str, Metric] | None, step: Step) -> dict[str, float | Undefined]:
    """Check that a stage returned the metrics that it declares, and convert them to floats.

    Args:
        metrics: what it returned.
        declared: the metrics by name; None for all that it returned, if they can be columns of the results.
        step: the step.

    Raises:
        RejectedError: a metric is missing, undeclared, not finite, or undefined and not nullable.
    """
    if not isinstance(metrics, Mapping):
        raise RejectedError(f"the stage returned {type(metrics).__name__}, expected a mapping of metrics")
    try:
        metrics = dict(metrics)
    except BaseException as error:
        raise RejectedError(f"the metrics cannot be read: {describe_error(error)}") from error
    if declared is None:
        declared = _undeclared(metrics, step)
    missing = [name for name in declared if name not in metrics]
    undeclared = [str(name) for name in metrics if name not in declared]
    if missing or undeclared:
        wrong = {"missing": missing, "undeclared": undeclared, "declared": list(declared)}
        parts = [f"{what}: {', '.join(map(repr, names))}" for what, names in wrong.items() if names]
        raise RejectedError(f"metrics {'; '.join(parts)}")
    values: dict[str, float | Undefined] = {}
    for name, metric in declared.items():
        value = metrics[name]
        if metric.nullable and isinstance(value, Undefined):
            if not isinstance(value.reason, str):
                raise RejectedError(f"metric {name!r} is undefined, but its reason is no text")
            values[name] = Undefined(plain_text(redact(value.reason), 2000))
            continue
        number = values[name] = _number(name, value)
        if not math.isfinite(number):
            raise RejectedError(f"metric {name!r} is {number}, expected a finite number")
    return values


def _undeclared(metrics: Mapping[Any, Any], step: Step) -> dict[str, Metric]:
    taken = {name.lower() for name in (*RESERVED_NAMES, *step.coords)}
    for name in metrics:
        if not isinstance(name, str) or not name.isidentifier():
            raise RejectedError(f"{name!r} cannot name a metric: use letters, digits and _")
        if name.lower() in taken:
            what = "an axis" if name in step.coords else "a column of the results"
            raise RejectedError(f"metric {name!r} has the name of {what}; return it under another name, or not at all")
    return {name: Metric(name) for name in metrics}


def keep_declared_files(out: Path, patterns: Sequence[str]) -> None:
    """Delete what a stage left beside the files that it declares.

    Raises:
        RejectedError: a declared file is not there.
    """
    if not patterns:
        return
    kept = {path for pattern in patterns for path in out.glob(pattern)}
    for pattern in patterns:
        if not any(out.glob(pattern)):
            raise RejectedError(f"the stage declares the file {pattern!r}, but did not write it")
    for path in sorted(out.rglob("*"), reverse=True):
        if path not in kept and not path.is_dir() and not kept.intersection(path.parents):
            path.unlink()


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError("a text is no number")
        return float(value)
    except BaseException as error:
        try:
            shown = repr(value)[:200]
        except BaseException:
            # A class of the stage's own, or an integer too long to be printed.
            shown = f"of type {type(value).__name__}"
        raise RejectedError(f"metric {name!r} is {shown}, expected a number that a float can hold") from error
