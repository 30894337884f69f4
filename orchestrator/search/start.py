"""The trials that a sweep file asks for itself, before its sampler chooses any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.plan.columns import Plan
from orchestrator.plan.references import is_reference
from orchestrator.search.studies import OpenStudy
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.sweep.search import SpaceField, as_plain
from orchestrator.types import Scalar


def start_trials(plan: Plan, study: OpenStudy) -> list[tuple[str, dict[str, Scalar]]]:
    """Return what the first trials of a study are to be: (`defaults` or `start`, field -> value).

    A field that exists and is not given is left to the sampler.

    Raises:
        SweepError: the default of a field is not known, or is no value of it.
    """
    found: list[tuple[str, dict[str, Scalar]]] = []
    for each in study.search.start:
        if each == "defaults":
            found.append(("defaults", _defaults(plan, study)))
        elif isinstance(each, Mapping):
            found.append(("start", dict(each)))
    return found[: study.budget]


def _defaults(plan: Plan, study: OpenStudy) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    problems: list[Problem] = []
    for name, field in study.search.fields.items():
        if not study.search.exists(name, study.coords, values):
            continue
        label = field.default
        if label is None:
            known, value = _default_of_stages(plan, study, name)
            label = _label(field, value) if known else None
            if label is None:
                what = f"its default, {value!r}, is no value of the field" if known else "no stage has a default for it"
                path = ("search", str(plan.spec.search_name), "space", name)
                message = f"`start: [defaults]` needs a default, and {what}; write default: VALUE here"
                problems.append(plan.spec.problem(path, message))
                continue
        values[name] = label
    if problems:
        raise SweepError(problems)
    return values


def _default_of_stages(plan: Plan, study: OpenStudy, name: str) -> tuple[bool, Any]:
    """Return whether a config that reads a field has a default in its place, and that default."""
    search = plan.spec.search_name
    for entry in plan.open_entries:
        layers = plan.spec.stages[entry].config
        readers = [
            name if layer == f"${search}" else config_field
            for layer in (layers if isinstance(layers, list) else [layers])
            for config_field in ([name] if is_reference(layer) else layer)
            if layer == f"${search}" or (isinstance(layer, dict) and layer[config_field] == f"${search}.{name}")
        ]
        if not readers:
            continue
        planned = plan.by_entry[entry]
        cell = study.over[0][0]
        resolved = planned.wired.resolved[planned.own[plan.points_of(entry)[cell]]]
        field = resolved.stage.config.model_fields.get(readers[-1]) if resolved else None
        if field is not None and not field.is_required():
            return True, field.get_default(call_default_factory=True)
    return False, None


def _label(field: SpaceField, value: Any) -> Scalar | None:
    """Return how a value is recorded; None where the field does not have it."""
    if field.choice is not None:
        return next((label for label in field.labels if as_plain(field.value(label)) == as_plain(value)), None)
    if field.float_ is not None and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return value if field.contains(value) else None
