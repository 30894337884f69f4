"""The grammar of `analysis`: what a sweep is to show, declared before there are results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.sweep.part import Part
from orchestrator.types import Scalar

Direction = Literal["higher", "lower"]


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


#: One name, or a list of names.
_Names = Annotated[tuple[str, ...], BeforeValidator(_several, json_schema_input_type=str | list[str])]


class Outcome(Part):
    """A metric that the sweep is about."""

    metric: str
    better: Direction | None = None
    """Which of its values are better; None: as the stage that returns it declares."""


class Primary(Outcome):
    """The metric that the sweep is about first: it is what ranks, and what claims are about that name no other."""

    by: _Names = ()
    """Axes that are never averaged over, as those across which the metric has different scales or prompts."""


def _outcome(value: object) -> object:
    return {"metric": value} if isinstance(value, str) else value


class Contrast(Part):
    """A difference, or a slope, and of what: exactly one of `compare` and `slope`."""

    compare: dict[str, list[Any]] | None = None
    """One axis -> two of its values, the first minus the second; more values: each minus the next."""
    slope: str | None = None
    """An axis of numbers: change per unit of it, by least squares."""
    log: bool = False
    """Whether the slope is per doubling of the axis."""
    of: Contrast | None = None
    """The contrast that is compared, or whose slope is taken; None: the metric itself."""

    @model_validator(mode="after")
    def _is_one(self) -> Contrast:
        if (self.compare is None) == (self.slope is None):
            raise ValueError("write compare: {AXIS: [VALUE, VALUE]} or slope: AXIS")
        if self.compare is not None:
            if len(self.compare) != 1:
                raise ValueError("compares the values of one axis; a difference of differences has `of: {compare: …}`")
            values = next(iter(self.compare.values()))
            if len(values) < 2:
                raise ValueError("a comparison needs two values")
            if any(each in values[:place] for place, each in enumerate(values)):
                raise ValueError("a value is there twice; keep one")
            if self.log:
                raise ValueError("`log` belongs to a slope")
        if self.of is not None and len(self.of.values) > 2:
            raise ValueError("what is contrasted again compares two values")
        return self

    @property
    def axis(self) -> str:
        """The axis along which it contrasts."""
        return self.slope if self.slope is not None else next(iter(self.compare or {}))

    @property
    def values(self) -> list[Scalar]:
        """The values that are compared; none of a slope."""
        return next(iter(self.compare.values())) if self.compare else []

    @property
    def layers(self) -> Iterator[Contrast]:
        """Yield this contrast, and what it is of."""
        yield self
        if self.of is not None:
            yield from self.of.layers


class Claim(Contrast):
    """Something that the results may show to hold, or not to hold."""

    metric: str | None = None
    """None: the primary metric."""
    within: dict[str, Any] = Field(default_factory=dict)
    """Axis -> value, or list of values, over which is averaged; without, over all."""
    each: _Names = ()
    """Axes at each value of which it is claimed, instead of on average."""
    expect: Literal["positive", "negative"] | None = None
    """The sign that is claimed. None: of a comparison, that the first is better; of a slope, that there is one."""
    equivalent: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Claim that the contrast lies between minus and plus this."""
    no_worse: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Claim that the first is worse by less than this, if at all."""

    @model_validator(mode="after")
    def _claims_one(self) -> Claim:
        given = [name for name in ("expect", "equivalent", "no_worse") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"claims one thing: {' or '.join(given)}")
        if len(self.values) > 2 and (self.equivalent or self.no_worse):
            raise ValueError("of an order of several values it can only be claimed that each is better than the next")
        return self


class Analysis(Part):
    """What a sweep is to show. It is hashed by itself, and no part of any key."""

    primary: Primary
    secondary: tuple[Annotated[Outcome, BeforeValidator(_outcome, json_schema_input_type=str | Outcome)], ...] = ()
    """Further metrics that are shown beside it."""
    random: dict[str, _Names] = Field(default_factory=dict)
    """What a replication would draw anew: name -> an axis, or "ENTRY/FILE", the table of single prompts that the stage
    of an entry wrote. Without: the axis `seed`."""
    claims: dict[str, Claim] = Field(default_factory=dict)
    """Name -> claim. All are one family of tests, and are reported whatever they say."""

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The primary metric and the secondary ones."""
        return (self.primary, *self.secondary)

    def random_axes(self) -> dict[str, str]:
        """Return name -> axis of what is drawn anew, the tables of prompts left out; `seed` where nothing is said."""
        return {name: each[0] for name, each in self.random.items() if not is_table(each)} or {"seed": "seed"}

    def prompt_tables(self) -> tuple[str | None, tuple[tuple[str, str], ...]]:
        """Return the name of the random prompts, if any, and the (entry, file) of their tables."""
        for name, each in self.random.items():
            if is_table(each):
                return name, tuple((entry, file) for entry, _, file in (text.partition("/") for text in each))
        return None, ()


def is_table(places: tuple[str, ...]) -> bool:
    """Tell whether something random is a table of single prompts, and no axis."""
    return any("/" in place for place in places)


def directions(analysis: Analysis | None, declared: Mapping[str, Direction | None]) -> dict[str, Direction]:
    """Return metric -> which of its values are better, as far as sweep or stage says: first those of the analysis.

    Args:
        analysis: of the sweep.
        declared: metric -> what its stage declares.
    """
    found: dict[str, Direction] = {}
    for each in analysis.outcomes if analysis else ():
        if better := each.better or declared.get(each.metric):
            found.setdefault(each.metric, better)
    return found | {name: better for name, better in declared.items() if better and name not in found}
