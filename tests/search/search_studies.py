"""Studies that are played: trials under way at once, some failed, some pruned, constraints, conditional fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.search.records import Earlier, Suggestion, Told, Verdict
from orchestrator.search.sampling import Sampling
from orchestrator.search.trial import Study, Trial
from orchestrator.sweep.search import Search
from orchestrator.types import Scalar

SPACE = {
    "lr": {"float": [1e-5, 1e-1], "log": True},
    "model": {"choice": {"small": [8], "large": [32, 8]}},
    "width": {"float": [0.0, 1.0], "step": 0.25, "when": {"model": "large"}},
    "depth": {"int": [1, 6]},
    "leaves": {"int": [2, 64], "log": True, "when": {"policy": "helpful"}},
    "harmless": {"choice": [True, False, 3], "when": {"policy": "harmless"}},
}
COORDS = {"policy": "helpful"}
EARLIER = (
    Earlier({"lr": 1e-3, "model": "small", "depth": 2, "leaves": 4}, (0.25,), (-1.0,)),
    Earlier({"lr": 1e-4, "model": "large", "width": 0.5, "depth": 5, "leaves": 8}, (0.5,), (0.5,)),
)

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"name": "TPESampler", "n_startup_trials": 4},
    "tpe one by one": {"name": "TPESampler", "n_startup_trials": 4, "multivariate": False},
    "tpe group": {"name": "TPESampler", "n_startup_trials": 4, "multivariate": True, "group": True},
    "random": {"name": "RandomSampler"},
    "cma-es": {"name": "CmaEsSampler", "popsize": 4},
    "cma-es with margin": {"name": "CmaEsSampler", "popsize": 4, "with_margin": True},
    "nsga-ii": {"name": "NSGAIISampler", "population_size": 4},
    "nsga-iii": {"name": "NSGAIIISampler", "population_size": 4},
    "qmc": {"name": "QMCSampler"},
    "qmc scrambled": {"name": "QMCSampler", "scramble": True},
    "fixed": {
        "name": "PartialFixedSampler",
        "fixed_params": {"depth": 2},
        "base_sampler": {"name": "NSGAIISampler", "population_size": 4},
    },
}
MEDIAN = {"name": "MedianPruner"}
START = {0: {"lr": 0.002, "depth": 3}, 1: {"lr": 0.003, "model": "large", "width": 1.0, "depth": 1, "leaves": 64}}


def a_search(**changed: Any) -> Search:
    """A search with fields of all types, a constraint, and one metric."""
    parts = {
        "space": SPACE,
        "objective": {"metric": "score", "better": "higher", "over": {"seed": [0, 1, 2, 3]}},
        "constraints": {"cost": {"at_most": 3.0}},
        "trials": 60,
        "seed": 3,
    }
    return Search.model_validate(parts | changed)


def outcome(search: Search, number: int, values: Mapping[str, Scalar]) -> Told:
    """What becomes of a trial: every seventh fails, and with a pruner every seventh is pruned."""
    score = -abs(float(values["lr"]) - 0.01) - 0.1 * float(values["depth"]) + float(values.get("width", 0.0))
    excesses = tuple(float(values["depth"]) - 3.0 for _ in search.constraints)
    steps = (score, score / 2, score / 3) if search.pruner else ()
    if number % 7 == 3:
        return Told(number, "failed", why="TIMED_OUT")
    if number % 7 == 5 and search.pruner:
        return Told(number, "pruned", (score,), excesses, steps[:2])
    return Told(
        number, "complete", tuple(score * (1 - 2 * at) for at in range(len(search.objective.metrics))), excesses, steps
    )


@dataclass
class Played:
    """A study that lived from its first trial on: what is recorded of it."""

    suggestions: list[Suggestion]
    sampling: Sampling


def play(
    search: Search,
    trials: int,
    concurrency: int = 1,
    earlier: Sequence[Earlier] = (),
    start: Mapping[int, Mapping[str, Scalar]] | None = None,
) -> Played:
    """Let a study live: with several trials under way, the one in the middle ends first."""
    sampling = Sampling(search, COORDS, "1f2e3d", earlier)
    suggestions: list[Suggestion] = []
    running: list[int] = []
    for number in range(trials):
        ended: list[Told] = []
        while len(running) >= concurrency:
            other = running.pop(len(running) // 2)
            ended.append(outcome(search, other, suggestions[other].values))
        for told in sorted(ended, key=lambda each: each.number):
            sampling.tell(told)
        values, attributes = sampling.suggest(number, (start or {}).get(number))
        suggestions.append(Suggestion(number, values, tuple(ended), attributes))
        running.append(number)
    return Played(suggestions, sampling)


def rebuilt(search: Search, suggestions: Sequence[Suggestion], earlier: Sequence[Earlier] = ()) -> Sampling:
    """Make a study anew from what is recorded."""
    sampling = Sampling(search, COORDS, "1f2e3d", earlier)
    for suggestion in suggestions:
        sampling.adopt(suggestion)
    return sampling


def written(suggestion: Suggestion) -> str:
    """The JSON of a suggestion; its keys sorted, as files may have them."""
    return json.dumps(asdict(suggestion), sort_keys=True, allow_nan=False)


def read(text: str) -> Suggestion:
    """Read the JSON of a suggestion."""
    found = json.loads(text)
    told = [Told(**{key: tuple(v) if isinstance(v, list) else v for key, v in each.items()}) for each in found["told"]]
    return Suggestion(**found | {"told": tuple(told)})


def verdict(sampling: Sampling, number: int, steps: Sequence[float]) -> Verdict:
    """Ask a pruner, and record what it says."""
    prune, attributes = sampling.judge(number, steps)
    return Verdict(number, len(steps) - 1, prune, json.loads(json.dumps(attributes)))


def a_study(search: Search, trials: int = 20, running: int = 0, **changed: Any) -> Study:
    """A study that has come so far: its last trials are under way."""
    found = []
    for suggestion in play(search, trials, 3).suggestions:
        number, values = suggestion.number, suggestion.values
        if number >= trials - running:
            found.append(Trial(number, values, "running", None, suggested=1.7e9 + number))
            continue
        told = outcome(search, number, values)
        objectives = None if told.state == "failed" else told.objectives
        trial = Trial(number, values, told.state, objectives, told.excesses, (), told.steps, 1.5, 1.7e9 + number)
        found.append(trial)
    parts: dict[str, Any] = {"name": "tuning/helpful", "id": "1f2e3d", "trials": tuple(found)}
    return Study(search=search, coords=COORDS, budget=trials, **parts | changed)
