"""Parts of Optuna by name: samplers, pruners, importance evaluators, and what some samplers are made of."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from types import ModuleType
from typing import Any

import optuna
from optuna.importance import BaseImportanceEvaluator
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, nsgaii

from orchestrator.sweep.search import Chooser, Search


@dataclass(frozen=True)
class Kind:
    """Parts that can stand in the place of each other."""

    base: str
    """Optuna's name of what they have in common."""
    module: ModuleType
    word: str

    @property
    def parts(self) -> dict[str, type]:
        """The parts by name."""
        base = getattr(self.module, self.base)
        found = {name: getattr(self.module, name) for name in self.module.__all__ if not name.startswith("Base")}
        return {name: each for name, each in found.items() if inspect.isclass(each) and issubclass(each, base)}


SAMPLERS = Kind("BaseSampler", optuna.samplers, "sampler")
PRUNERS = Kind("BasePruner", optuna.pruners, "pruner")
EVALUATORS = Kind("BaseImportanceEvaluator", optuna.importance, "importance evaluator")
_KINDS = (
    SAMPLERS,
    PRUNERS,
    EVALUATORS,
    Kind("BaseCrossover", nsgaii, "crossover"),
    Kind("BaseMutation", nsgaii, "mutation"),
)
#: Samplers that choose a place in a sequence or grid, and remember which: it has to be the same one for all trials.
_SEQUENCES = ("GridSampler", "QMCSampler")


class _CmaEsSampler(optuna.samplers.CmaEsSampler):
    """CMA-ES whose pickled optimizers hold nothing but what it made of the trials.

    The package cmaes begins with memory that nobody wrote (`np.empty`): whatever this process kept there would get into
    records, which then could not be made again. It is never read before it is written.
    """

    def _init_optimizer(self, *arguments: Any) -> Any:
        optimizer = super()._init_optimizer(*arguments)
        getattr(optimizer, "_cma", optimizer)._funhist_values.fill(0.0)
        return optimizer


@cache
def parameters_of(part: type) -> dict[str, inspect.Parameter]:
    """Return the options of a part, by name."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: each for name, each in inspect.signature(part).parameters.items() if each.kind not in variadic}


def annotation(parameter: inspect.Parameter) -> str:
    """Return the type of an option as Optuna wrote it down."""
    return (
        parameter.annotation
        if isinstance(parameter.annotation, str)
        else inspect.formatannotation(parameter.annotation)
    )


def kind_of(parameter: inspect.Parameter) -> Kind | None:
    """Return the kind of the part that an option wants; None if it wants a value."""
    return next((kind for kind in _KINDS if annotation(parameter).partition(" ")[0] == kind.base), None)


def repetitions(search: Search) -> int:
    """Return the number of repetitions of a trial."""
    return prod(len(values) for values in search.objective.over.values())


def core(search: Search) -> tuple[str, dict[str, Any]]:
    """Return name and options of the sampler that chooses what PartialFixedSampler leaves open."""
    name, options = search.sampler.name, search.sampler.options
    while name == "PartialFixedSampler":
        options = dict(options["base_sampler"])
        name = options.pop("name")
    return name, options


def make_sampler(search: Search, number: int) -> BaseSampler:
    """Make the sampler of a search for one trial.

    Raises:
        Exception: whatever Optuna raises for options in which `options.problems` finds a mistake.
    """
    sampler: BaseSampler = _made(SAMPLERS, search.sampler.name, search.sampler.options, search, number)
    return sampler


def make_pruner(search: Search) -> BasePruner | None:
    """Make the pruner of a search; None where it has none.

    Raises:
        Exception: whatever Optuna raises for options in which `options.problems` finds a mistake.
    """
    if search.pruner is None:
        return None
    pruner: BasePruner = _made(PRUNERS, search.pruner.name, search.pruner.options, search, 0)
    return pruner


def make_importance(search: Search) -> BaseImportanceEvaluator:
    """Make the importance evaluator of a search.

    Raises:
        Exception: whatever Optuna raises for options in which `options.problems` finds a mistake.
    """
    chooser: Chooser = search.importance
    evaluator: BaseImportanceEvaluator = _made(EVALUATORS, chooser.name, chooser.options, search, 0)
    return evaluator


def make_part(kind: Kind, chooser: Chooser, search: Search) -> object:
    """Make a part as for the first trial of a search."""
    return _made(kind, chooser.name, chooser.options, search, 0)


def _made(kind: Kind, name: str, options: Mapping[str, Any], search: Search, number: int) -> Any:
    part = kind.parts[name]
    parameters = parameters_of(part)
    given = dict(options)
    for each, value in options.items():
        inner = kind_of(parameters[each]) if each in parameters else None
        if inner is not None and isinstance(value, Mapping):
            given[each] = _made(inner, value["name"], {k: v for k, v in value.items() if k != "name"}, search, number)
    if "seed" in parameters:
        given["seed"] = _seed(search) if name in _SEQUENCES else _seed(search, number)
    if name == "CmaEsSampler":
        part = _CmaEsSampler
    if name == "QMCSampler" and given.get("independent_sampler") is None:
        given["independent_sampler"] = optuna.samplers.RandomSampler(seed=_seed(search, number))
    if name == "HyperbandPruner" and given.get("max_resource", "auto") == "auto":
        # Optuna guesses it from the first trial that is complete, and remembers it.
        given["max_resource"] = repetitions(search)
    return part(**given)


def _seed(search: Search, *numbers: int) -> int:
    """Return a seed as numpy takes them, of 32 bits."""
    text = ":".join(str(each) for each in (search.seed, *numbers))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
