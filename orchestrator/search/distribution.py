"""Fields of a space as Optuna knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection

from orchestrator.search.quiet import quiet
from orchestrator.sweep.search import Search, SpaceField
from orchestrator.types import Scalar


def distribution(field: SpaceField) -> BaseDistribution:
    """Return what Optuna samples for a field; of choices these are the labels.

    A highest value that no number of steps leads to becomes the last one before it.
    """
    with quiet():
        if field.int_ is not None:
            return IntDistribution(*field.int_, log=field.log, step=int(field.step or 1))
        if field.float_ is not None:
            return FloatDistribution(*field.float_, log=field.log, step=field.step)
    return CategoricalDistribution(field.labels)


def parameters(search: Search, values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return what Optuna's trials hold of recorded values: `params` and `distributions`, in order of the space.

    Values that Optuna would not have chosen, such as a start value between two steps, stay as they are.

    Raises:
        ValueError: a value is none of its field's choices.
    """
    found = {name: distribution(field) for name, field in search.fields.items() if name in values}
    # By way of the number that stands for it, as Optuna does: a whole number of a float field becomes a float.
    params = {name: each.to_external_repr(each.to_internal_repr(values[name])) for name, each in found.items()}
    return {"params": params, "distributions": found}


def directions(search: Search) -> list[StudyDirection]:
    """Return the directions of a search's metrics."""
    found = {"higher": StudyDirection.MAXIMIZE, "lower": StudyDirection.MINIMIZE}
    return [found[better] for better in search.objective.directions]


def constraints(search: Search, excesses: tuple[float, ...]) -> dict[str, float]:
    """Return the system attributes in which Optuna 5 keeps by how much each constraint is broken."""
    # As `Trial.set_constraint` names them, which can be called of trials that live only.
    return {f"constraints:{name}": each for name, each in zip(search.constraints, excesses, strict=True)}
