"""Calls a stage: verified inputs in, checked metrics out."""

from __future__ import annotations

import importlib
import inspect
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.attempt.outcome import DamagedInputsError, RejectedError, describe_error
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.store import DamagedArtifactError, Store
from orchestrator.texts import plain_text
from orchestrator.types import Artifact, Step
from workers.config import Config
from workers.metric import Metric, Undefined


def call_stage(
    request: Request, store: Store, out: Path, fetched: dict[Artifact, Path] | None = None
) -> dict[str, float | Undefined]:
    """Call the stage function on verified inputs and check its metrics.

    Args:
        request: the step, and how to run it.
        store: where its inputs are.
        out: the folder that the stage writes into.
        fetched: artifact -> folder of inputs that were verified already; those that are fetched are added.

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
    options = {"batch_size": batch_size} if definition.batches and batch_size else {}
    metrics = prepared_function(definition.function, request)(config, out, **inputs, **options)
    return check_metrics(metrics, config.declared())


def config_of(request: Request) -> Config:
    """Return the config that the stage of a request is called with."""
    return request.step.definition.config.model_validate(request.step.config)


def input_folders(request: Request, store: Store, fetched: dict[Artifact, Path]) -> dict[str, Path | list[Path]]:
    """Fetch the artifacts that a step reads; return their verified folders by input.

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
            folder = fetched.get(artifact)
            if folder is None:
                try:
                    folder = fetched[artifact] = store.fetch(artifact)
                except DamagedArtifactError as error:
                    damage.append(error)
                    continue
            folders.append(folder)
        inputs[name] = folders if step.definition.inputs[name].many else (folders or [Path()])[0]
    if damage:
        # All of them, so that they are recomputed together.
        raise DamagedInputsError(damage)
    return inputs


def stage_source(step: Step) -> str:
    """Return the place of a stage's function, as `file:line`."""
    function = _function(step.definition.function)
    return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"


def prepared_function(name: str, request: Request) -> Callable[..., Any]:
    """Load a function of a stage, "module:name", and prepare this process for the request.

    Raises:
        CodeChangedError: the code on disk is not the driver's.
    """
    function = _function(name)
    PROCESS.prepare(request)
    return function


def _function(name: str) -> Callable[..., Any]:
    # TRL and the Hub libraries report usage when they are imported; the owner of a cluster has not agreed to that.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


def check_metrics(metrics: object, declared: Mapping[str, Metric]) -> dict[str, float | Undefined]:
    """Check that a stage returned the metrics that it declares, and convert them to floats.

    Raises:
        RejectedError: a metric is missing, undeclared, not finite, or undefined and not nullable.
    """
    if not isinstance(metrics, Mapping):
        raise RejectedError(f"the stage returned {type(metrics).__name__}, expected a mapping of metrics")
    try:
        metrics = dict(metrics)
    except BaseException as error:
        raise RejectedError(f"the metrics cannot be read: {describe_error(error)}") from error
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
            values[name] = Undefined(plain_text(value.reason, 2000))
            continue
        number = values[name] = _number(name, value)
        if not math.isfinite(number):
            raise RejectedError(f"metric {name!r} is {number}, expected a finite number")
    return values


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
