"""Effects: contrasts of a sweep's results, with what may be said of them.

Every mean difference, rank, slope and claim that is printed of a sweep comes from `Sample.effect`, so that no two of
them can contradict each other. Two statements stand side by side: for new draws of the axes that are random, the seed
above all, on the test prompts at hand; and for new prompts as well, where the sweep declares its tables of single
prompts and the metric is a mean over them (`statistics.crossed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.analysis.contrast import Arranged, Weights, arrange
from orchestrator.analysis.means import gaps
from orchestrator.analysis.metric_grid import MetricGrid, missing_cells, read_metric_grid
from orchestrator.statistics.available import Available, available
from orchestrator.statistics.bootstrap import product_bootstrap
from orchestrator.statistics.crossed import Crossed, Interval, crossed
from orchestrator.statistics.estimates import Reals
from orchestrator.statistics.power import Pilot
from orchestrator.sweep.analysis import Analysis
from orchestrator.types import Scalar


class Singles(Protocol):
    """Values of single prompts."""

    def read(self, metric: str, rows: NDArray[np.int64]) -> tuple[Reals | None, str]:
        """Return the values (rows, prompts) of some rows of the table, NaN where there is none; or None, and why."""


@dataclass(frozen=True)
class Effect:
    """A contrast of a metric. Numbers that cannot be computed are None, and a note says why."""

    estimate: float | None = None
    fixed: Interval | None = None
    """For new draws of the random axes, on the test prompts at hand."""
    new: Interval | None = None
    """For new prompts, too; None where there are no values of single prompts."""
    bootstrap: tuple[float, float] | None = None
    """Ends of the product bootstrap's interval, for what `new` is for, if it was asked for."""
    seeds: int = 0
    """Draws of the random axes that were used."""
    prompts: int = 0
    """Prompts that were used; 0 where there are no values of single ones."""
    combinations: int = 0
    """Combinations of the averaged axes that were used."""
    cells: int = 0
    missing: int = 0
    """Of so many cells of the contrast so many have no number."""
    depends: float | None = None
    """p of "which cells are missing has nothing to do with what is contrasted"; None where none is missing."""
    squares: Mapping[tuple[str, ...], float] | None = None
    """Set of random factors -> its variance component."""
    notes: tuple[str, ...] = ()

    @property
    def pilot(self) -> Pilot | None:
        """What it says to whoever plans another sweep; None without spread, or where more than seeds is random."""
        if self.squares is None or self.interval is None or self.interval.p is None:
            return None
        parts = list(self.squares.values())
        if len(parts) == 1:
            return Pilot(self.interval.mean, self.seeds, parts[0])
        if self.new is None or len(parts) != 3:
            return None
        seed, prompt, rest = parts
        return Pilot(self.new.mean, self.seeds, seed, self.prompts, prompt, rest)

    @property
    def interval(self) -> Interval | None:
        """The widest statement that can be made: for new prompts where there is one."""
        return self.new or self.fixed


@dataclass(frozen=True)
class Filled:
    """A metric with the values of an axis as arms."""

    labels: tuple[Scalar, ...]
    """The values that have a number."""
    values: Reals
    """(draws, combinations, values): those that are used, without gaps."""
    notes: tuple[str, ...]
    """What is missing."""

    @property
    def means(self) -> dict[Scalar, float]:
        """Value -> balanced mean; empty where the values have no pairs."""
        if not self.values.size:
            return {}
        return dict(zip(self.labels, self.values.mean(axis=(0, 1)).tolist(), strict=True))


class Sample:
    """The results of a sweep as a sample: what is random in them, and what of single prompts is known."""

    def __init__(
        self,
        table: pa.Table,
        analysis: Analysis | None = None,
        metrics: Sequence[str] = (),
        confidence: float = 0.95,
        singles: Singles | None = None,
    ) -> None:
        """Arrange a table.

        Args:
            table: results, or those rows that are compared.
            analysis: says what is random; None: the axis `seed`.
            metrics: that will be asked for; none for all.
            confidence: of intervals.
            singles: values of single prompts, where the sweep declares them.
        """
        self.grid: MetricGrid = read_metric_grid(table, metrics)
        self.confidence = confidence
        self.axes = analysis.random_axes() if analysis else {"seed": "seed"}
        self._prompt = analysis.prompt_tables()[0] if analysis else None
        self.apart = tuple(
            axis for axis in (analysis.primary.by if analysis else ()) if len(self.grid.labels(axis)) > 1
        )
        """The axes that are never averaged over."""
        self._singles = singles
        self._statuses = np.array(table["status"].to_pylist(), np.str_)

    @property
    def random(self) -> tuple[str, ...]:
        """The axes whose values are the sample, as far as there are such axes."""
        return tuple(axis for axis in self.axes.values() if axis in self.grid.axes)

    def missing_cells(self, table: pa.Table) -> list[str]:
        """Return warnings about the cells of its table that have no result, and whether it has draws enough."""
        return missing_cells(table, tuple(self.axes.values()), self._prompt is not None)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name, axis in self.axes.items() if axis in self.grid.axes) or ("draw",)

    @property
    def _one_draw(self) -> bool:
        """Whether nothing but prompts can be drawn anew, since there is one draw of all else."""
        return all(len(self.grid.labels(axis)) < 2 for axis in self.random)

    @property
    def fixed(self) -> str:
        """Say what `Effect.fixed` is for."""
        draws = " and ".join(f"new {_several(name)}" for name in self._names)
        return f"{draws}, these {_several(self._prompt)}" if self._prompt else draws

    @property
    def new(self) -> str | None:
        """Say what `Effect.new` is for; None where no values of single prompts are declared."""
        if self._prompt is None:
            return None
        if self._one_draw:
            return f"new {_several(self._prompt)}, this {' and '.join(self._names)}"
        return " and ".join(f"new {_several(name)}" for name in (*self._names, self._prompt))

    def effect(self, metric: str, weights: Weights, bootstrap: bool = False) -> Effect:
        """Compute a contrast, from all pairs of cells that are there.

        Args:
            metric: one of the sample.
            weights: the contrast.
            bootstrap: also compute the product bootstrap's interval, which takes a hundred times longer.

        Raises:
            StoreError: tables of single prompts cannot be read.
        """
        arranged = arrange(self.grid, metric, weights, self.random)
        there = np.isfinite(arranged.values)
        if not there.any():
            return Effect(cells=int((arranged.rows >= 0).sum()), notes=(f"no cell has a number of {metric} yet",))
        found, said = self._completed(arranged.values, arranged.rows, arranged.averaged)
        counted = Effect(cells=found.cells, missing=found.missing, depends=found.p, notes=said)
        if not found.values.size:
            return replace(counted, notes=(*counted.notes, "no two cells that differ in nothing else have results"))
        scale = float(np.abs(found.values).max())
        effects = _contracted(found.values, arranged.weights)
        prompts, why = self._of_prompts(metric, arranged, there, found)
        if prompts is not None:
            effects = prompts.mean(axis=1)
        notes = [*counted.notes, *([why] if why else [])]
        counted = replace(
            counted,
            estimate=float(effects.mean()),
            seeds=len(effects),
            prompts=0 if prompts is None else prompts.shape[1],
            combinations=found.values.shape[1],
            notes=tuple(notes),
        )
        units = _crossing(arranged, found)
        if units is None:
            return replace(counted, notes=(*notes, "cells are missing, so that not all random axes are crossed"))
        if self._one_draw and prompts is not None and prompts.shape[1] > 1:
            # Miller 2024 (arXiv 2411.00640): the paired standard error over questions.
            paired = crossed(prompts[0], (str(self._prompt),), self.confidence, scale).all
            if paired.p is None:
                return replace(counted, notes=(*notes, _same(str(self._prompt))))
            return replace(counted, new=paired, estimate=paired.mean)
        if min(units) < 2:
            lone = self._names[units.index(min(units))]
            return replace(counted, notes=(*notes, f"one {lone} only: there is no interval and no p value"))
        fixed = crossed(effects.reshape(units), self._names, self.confidence, scale)
        counted = replace(counted, fixed=fixed.all, squares=fixed.components, estimate=fixed.all.mean)
        new: Crossed | None = None
        if prompts is not None and prompts.shape[1] > 1:
            singles = prompts.reshape(*units, -1)
            new = crossed(singles, (*self._names, str(self._prompt)), self.confidence, scale)
        if (new or fixed).all.p is None:
            return replace(counted, fixed=None, notes=(*notes, _same(*self._names)))
        if new is None:
            return counted
        ends = product_bootstrap(singles, self.confidence) if bootstrap else None
        return replace(counted, new=new.all, bootstrap=ends, squares=new.components)

    def filled(self, metric: str, axis: str, labels: Sequence[Scalar], at: Mapping[str, Sequence[Scalar]]) -> Filled:
        """Arrange a metric with the values of an axis as arms, what is missing filled in (`statistics.available`).

        Args:
            metric: one of the sample.
            axis: which is compared.
            labels: its values; those without any number are left out.
            at: axis -> its values that count; all of those of other axes do.
        """
        arranged = arrange(self.grid, metric, Weights({axis: dict.fromkeys(labels, 0.0)}, at), self.random)
        known = np.flatnonzero(np.logical_or.reduce(np.isfinite(arranged.values), axis=(0, 1))).tolist()
        found, said = self._completed(arranged.values[:, :, known], arranged.rows[:, :, known], arranged.averaged)
        return Filled(tuple(labels[place] for place in known), found.values, said)

    def means(
        self, metric: str, axis: str, labels: Sequence[Scalar], at: Mapping[str, Sequence[Scalar]]
    ) -> dict[Scalar, float]:
        """Return value -> balanced mean, of those values of an axis that have results and pairs; see `filled`."""
        return self.filled(metric, axis, labels, at).means

    def _completed(
        self, values: Reals, rows: NDArray[np.int64], averaged: Sequence[str]
    ) -> tuple[Available, tuple[str, ...]]:
        """Fill in what is missing of (draws, combinations, arms); return it, and what was missing."""
        there, meant = np.isfinite(values), rows >= 0
        found = available(values, there, meant)
        gone = self._statuses[rows[meant & ~there]].tolist()
        return found, tuple(gaps(found, gone, " × ".join(averaged) or "the other axes"))

    def _of_prompts(
        self, metric: str, arranged: Arranged, there: NDArray[np.bool_], found: Available
    ) -> tuple[Reals | None, str]:
        """Return the contrast (draws, prompts) of single prompts; or None, and why there is none."""
        if self._singles is None:
            return None, ""
        used = np.ix_(found.seeds, found.combinations)
        rows, there = arranged.rows[used], there[used]
        values, why = self._singles.read(metric, rows[there])
        if values is None:
            return None, why
        known = np.isfinite(values)
        kept: NDArray[np.bool_] = np.logical_and.reduce(known, axis=0)
        note = ""
        if not kept.all():
            lost = f"{int((~kept).sum()):,} of {len(kept):,} {_several(str(self._prompt))}"
            note = f"{lost} have no {metric} in some cell and are left out"
            if kept.sum() < 2:
                return None, note
            values = values[:, kept]
        if there.all():
            draws, share = rows.shape[0], np.tile(arranged.weights, rows.shape[1]) / rows.shape[1]
            return np.stack([share @ each for each in values.reshape(draws, -1, values.shape[1])]), note
        whole = np.full((*rows.shape, values.shape[1]), np.nan)
        whole[there] = values
        return _contracted(available(whole, there).values, arranged.weights), note


def _same(*names: str) -> str:
    return f"the same for every {' and '.join(names)}: there is no interval and no p value"


def _several(name: str) -> str:
    """Return the plural of a name: seeds, prompts, policies."""
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def _contracted(values: Reals, weights: Reals) -> Reals:
    """Contract (draws, combinations, arms, …) to the contrast (draws, …); the combinations count the same."""
    effects: Reals = np.tensordot(values.mean(axis=1), weights, axes=([1], [0]))
    return effects


def _crossing(arranged: Arranged, found: Available) -> tuple[int, ...] | None:
    """Return how many values of each random axis are used; None where these are not all crossed."""
    if found.seeds.all():
        return arranged.units
    used = found.seeds.reshape(arranged.units)
    sizes = [
        np.flatnonzero(used.any(axis=tuple(other for other in range(used.ndim) if other != axis)))
        for axis in range(used.ndim)
    ]
    return tuple(map(len, sizes)) if math.prod(map(len, sizes)) == used.sum() else None


def effect_record(effect: Effect) -> dict[str, Any]:
    """Return an effect for machines."""

    def record(interval: Interval | None) -> dict[str, float | None] | None:
        names = ("mean", "error", "df", "low", "high", "p")
        return {name: getattr(interval, name) for name in names} if interval else None

    return {
        "these_prompts": record(effect.fixed),
        "new_prompts": record(effect.new),
        "bootstrap": list(effect.bootstrap) if effect.bootstrap else None,
        **{name: getattr(effect, name) for name in ("seeds", "prompts", "combinations", "cells", "missing")},
        "notes": list(effect.notes),
    }
