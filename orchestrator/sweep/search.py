"""The grammar of `search`: values that a sampler of Optuna chooses, trial by trial, in the place of a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from orchestrator.sweep.part import Part, matches
from orchestrator.texts import nearest
from orchestrator.types import Scalar

#: The axis of the trials of a search.
TRIAL = "trial"
#: Trials of one study; a sampler looks at all that went before, so that more take days by themselves.
MOST_TRIALS = 10_000
_LARGEST = 2**53
_Bound = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]
_Whole = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]


def _choices(value: object) -> object:
    if isinstance(value, list):
        for each in value:
            if not isinstance(each, str | int | float):
                what = "only text, numbers, true and false stand for themselves"
                raise ValueError(f"{what}; give {each!r} a name: {{NAME: VALUE, …}}")
    elif not isinstance(value, dict):
        raise ValueError("is neither a list of values nor a mapping of names to values")
    return value


class SpaceField(Part):
    """A field whose value is searched for: exactly one of `float`, `int` and `choice`."""

    float_: tuple[_Bound, _Bound] | None = Field(default=None, alias="float")
    """Lowest and highest value, both included."""
    int_: tuple[_Whole, _Whole] | None = Field(default=None, alias="int")
    """Lowest and highest value, both included."""
    choice: Annotated[list[str | bool | int | float] | dict[str, Any] | None, BeforeValidator(_choices)] = None
    """The values, or name -> value where a value is more than a scalar."""
    log: bool = False
    """Whether ratios of values matter, and not differences."""
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Distance of neighbouring values, from the lowest on."""
    default: Any = None
    """The value that `start: [defaults]` tries first; without, the default of the config field that reads it."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Axis, or an earlier field with choices -> the value, or list of values, with which this field exists."""

    @model_validator(mode="after")
    def _fits_together(self) -> SpaceField:
        if sum(each is not None for each in (self.float_, self.int_, self.choice)) != 1:
            raise ValueError("a field has one of float: [LOW, HIGH], int: [LOW, HIGH], choice: [VALUE, …]")
        bounds = self.float_ or self.int_
        if bounds is None:
            if self.log or self.step is not None:
                raise ValueError("choices have neither log nor step")
            if not self.choice:
                raise ValueError("there is nothing to choose from")
            if isinstance(self.choice, list) and len({(type(each), each) for each in self.choice}) < len(self.choice):
                raise ValueError("a value is there twice; keep one")
            return self
        low, high = bounds
        if low >= high:
            raise ValueError(f"the lowest value, {low:g}, is not below the highest, {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"ratios of values (log: true) need a lowest value above 0, which {low:g} is not")
        if self.log and self.step is not None and not (self.int_ and self.step == 1):
            raise ValueError("a field has log or step, not both")
        if self.int_ and self.step is not None and self.step != int(self.step):
            raise ValueError("the step of whole numbers is a whole number")
        return self

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """The choices, as they are recorded: scalars, or the names of those that are named."""
        return tuple(self.choice or ())

    def value(self, label: Scalar) -> Any:
        """Return what a recorded value stands for."""
        return self.choice[str(label)] if isinstance(self.choice, dict) else label

    def contains(self, label: object) -> bool:
        """Tell whether a value can be recorded of this field."""
        if self.choice is not None:
            return any(type(each) is type(label) and each == label for each in self.labels)
        bounds = self.float_ or self.int_
        assert bounds is not None, "a field has one of the three"
        if isinstance(label, bool) or not isinstance(label, int | float) or not bounds[0] <= label <= bounds[1]:
            return False
        return self.float_ is not None or float(label).is_integer()

    def refusal(self, label: object) -> str:
        """Say why a value cannot be recorded of this field; empty where it can."""
        if self.contains(label):
            return ""
        if self.choice is not None:
            return f"{label!r} is no choice; {nearest(label, self.labels)}"
        kind, bounds = ("a number", self.float_) if self.float_ else ("a whole number", self.int_)
        assert bounds is not None, "a field has one of the three"
        return f"{label!r} is not {kind} from {bounds[0]:g} to {bounds[1]:g}"

    def typical(self) -> Iterator[Scalar]:
        """Yield values that differ as much as values of this field can: all choices, or both ends."""
        yield from self.labels or (self.float_ or self.int_ or ())


def _mapping_or(other: str) -> Discriminator:
    """Choose the member of a union by what was written, so that only its mistakes are told."""
    return Discriminator(lambda value: "a mapping" if not isinstance(value, str | bool | int | float) else other)


class Quantile(Part):
    """A quantile over repetitions, by linear interpolation."""

    quantile: Annotated[float, Field(ge=0, le=1)]


class Objective(Part):
    """What makes one trial better than another."""

    metric: str | tuple[str, ...]
    """A reported metric; several for a search for the best compromises (Pareto)."""
    better: Literal["higher", "lower"] | tuple[Literal["higher", "lower"], ...]
    """Which of its values are better; one for each metric."""
    over: dict[str, list[Any]] = Field(default_factory=dict)
    """Axis -> its values at which every trial is repeated."""
    reduce: Annotated[
        Annotated[Quantile, Tag("a mapping")] | Annotated[Literal["mean", "median", "worst"], Tag("a name")],
        _mapping_or("a name"),
    ] = "mean"
    """What is taken of the repetitions."""
    null: Literal["fail", "worst"] = "fail"
    """What a trial with an undefined metric is: failed, or worse than all others."""

    @model_validator(mode="after")
    def _as_many(self) -> Objective:
        if len(self.directions) != len(self.metrics) or not self.metrics:
            raise ValueError("say of each metric which of its values are better: higher or lower")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("a metric is there twice; keep one")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, also where there is one."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def directions(self) -> tuple[str, ...]:
        """For each metric, whether higher or lower values are better."""
        return (self.better,) if isinstance(self.better, str) else self.better


class Bound(Part):
    """What a metric may be at most, or must be at least; reduced over the repetitions like the objective."""

    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Bound:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("write at_most: NUMBER or at_least: NUMBER")
        return self

    def excess(self, value: float) -> float:
        """Return by how much a value breaks the bound; at most 0 where it does not."""
        return value - self.at_most if self.at_most is not None else float(self.at_least or 0.0) - value


class Chooser(Part):
    """A sampler, pruner or importance evaluator of Optuna, by name, with its options."""

    model_config = Part.model_config | {"extra": "allow"}
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        return dict(self.model_extra or {})


class From(Part):
    """Results that a study is told before its first trial."""

    from_: str = Field(alias="from")
    """A sweep file whose table has the fields of the space, and the objective, as columns."""


def _start(value: object) -> object:
    if value != "defaults" and not isinstance(value, dict | From):
        raise ValueError("is neither `defaults`, nor a mapping of fields to values, nor {from: SWEEP.yaml}")
    return value


def _not_empty(value: dict[str, Any]) -> dict[str, Any]:
    if not value:
        raise ValueError("has no fields, so there is nothing to search for")
    return value


#: A field that is searched, or a plain value. The tags have blanks, unlike what is written at their place.
_Searched = Annotated[
    Annotated[SpaceField, Tag("a mapping")] | Annotated[str | bool | int | float, Tag("a scalar")],
    _mapping_or("a scalar"),
]


class Search(Part):
    """A search: for each combination of the axes in `per` one study of Optuna."""

    per: tuple[str, ...] | None = None
    """The axes whose combinations have a study each; default: all but those of `objective.over`."""
    space: Annotated[dict[str, _Searched], AfterValidator(_not_empty)]
    """Field -> what is to be searched, or a plain value that is not; read as $NAME.field."""
    objective: Objective
    sampler: Chooser = Chooser(name="TPESampler")
    pruner: Chooser | None = None
    """Ends a trial after some of its repetitions, which are its steps."""
    importance: Chooser = Chooser(name="PedAnovaImportanceEvaluator")
    """Says which fields matter."""
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)]
    """Trials of each study, whatever becomes of them."""
    concurrency: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 4
    """Trials of a study that are under way at once; with 1 a study can be repeated bit for bit."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Of the samplers."""
    start: tuple[Annotated[Literal["defaults"] | From | dict[str, Any], BeforeValidator(_start)], ...] = ()
    """Trials that are made first, and results that are told."""
    fresh: dict[str, list[Any]] = Field(default_factory=dict)
    """Axis of `objective.over` -> other values, at which the best trial is measured again."""
    constraints: dict[str, Bound] = Field(default_factory=dict)
    """Metric -> what it may be; the best trial keeps to that."""
    storage: str | None = None
    """Where Optuna's own copy of the studies is kept, a URL of a database; default: a journal beside the table."""

    @cached_property
    def fields(self) -> dict[str, SpaceField]:
        """The fields that are searched, in order."""
        return {name: each for name, each in self.space.items() if isinstance(each, SpaceField)}

    @property
    def again(self) -> dict[str, list[Any]]:
        """Axis -> its values at which the best trial is measured again: fresh ones, where the axis has some."""
        return {axis: self.fresh.get(axis, values) for axis, values in self.objective.over.items()}

    @property
    def compares_repetitions(self) -> bool:
        """Whether the pruner is told each repetition by itself, to compare it with the same one of other trials; else
        what the repetitions so far reduce to."""
        return self.pruner is not None and self.pruner.name == "WilcoxonPruner"

    def exists(self, name: str, coords: Mapping[str, Scalar], values: Mapping[str, Scalar]) -> bool:
        """Tell whether a field exists at the coordinates of a study, given the values of the fields before it."""
        return matches(self.fields[name].when, {**values, **coords})

    def meant(self, values: Mapping[str, Scalar]) -> dict[str, Any]:
        """Return what recorded values stand for, plain values of the space included."""
        fields = self.fields
        plain = {name: value for name, value in self.space.items() if name not in fields}
        return plain | {name: fields[name].value(label) for name, label in values.items()}

    def samples(self, coords: Mapping[str, Scalar]) -> Iterator[dict[str, Scalar]]:
        """Yield values in which every field takes each of its `typical` values at least once, where it exists.

        The first of them has the lowest or first value of each field.
        """
        fields = self.fields

        def settled(wanted: Mapping[str, Scalar]) -> dict[str, Scalar]:
            values: dict[str, Scalar] = {}
            for name, field in fields.items():
                if self.exists(name, coords, values):
                    values[name] = wanted.get(name, next(field.typical()))
            return values

        seen: list[dict[str, Scalar]] = []
        for wanted in ({}, *({name: each} for name, field in fields.items() for each in field.typical())):
            # A field that exists with certain values of others is looked at with these.
            for name in wanted:
                needed = {
                    other: next(iter(_listed(each))) for other, each in fields[name].when.items() if other in fields
                }
                wanted = needed | wanted
            values = settled(wanted)
            if values not in seen:
                seen.append(values)
                yield values

    def budget(self, coords: Mapping[str, Scalar]) -> int:
        """Return the number of trials of the study at some coordinates; one is enough where nothing is searched."""
        return self.trials if next(self.samples(coords)) else 1


def as_plain(value: object) -> object:
    """Return a value as YAML has it: a list where a config has a tuple."""
    if isinstance(value, list | tuple):
        return [as_plain(each) for each in value]
    return value


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def reduced(values: list[float], reduce: str | Quantile, better: str) -> float:
    """Reduce the repetitions of a trial to the number that it is judged by.

    Args:
        values: at least one number.
        reduce: `Objective.reduce`.
        better: "higher" or "lower", for the worst of them.
    """
    ordered = sorted(values)
    if reduce == "worst":
        return ordered[0] if better == "higher" else ordered[-1]
    if reduce == "mean":
        return math.fsum(values) / len(values)
    share = 0.5 if isinstance(reduce, str) else reduce.quantile
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
