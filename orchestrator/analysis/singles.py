"""A sweep's results as a sample, with values of single prompts where the sweep declares their tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.analysis.effect import Sample
from orchestrator.analysis.per_prompt import PerPrompt, PromptValues
from orchestrator.session import Session
from orchestrator.statistics.estimates import Reals

Progress = Callable[[int, int], object]


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def sample_of(
    session: Session,
    table: pa.Table,
    metrics: Sequence[str] = (),
    confidence: float = 0.95,
    progress: Progress = _silent,
) -> Sample:
    """Return the results of a sweep as a sample.

    Args:
        session: the sweep.
        table: its results, or those rows of it that are compared.
        metrics: that will be asked for; none for all.
        confidence: of intervals.
        progress: called with how many tables of single prompts are read, and of how many.

    Raises:
        SweepError: the analysis names an entry that there is not.
    """
    analysis = session.spec.analysis
    places = analysis.prompt_tables()[1] if analysis else ()
    singles = _Singles(session, places, table, progress) if places else None
    return Sample(table, analysis, metrics, confidence, singles)


class _Singles:
    """Values of single prompts of the cells of a table; a metric is read for all of them when it is first asked for."""

    def __init__(
        self, session: Session, places: Sequence[tuple[str, str]], table: pa.Table, progress: Progress
    ) -> None:
        self._source = PerPrompt(session, places)
        self._cells = list(session.plan.positions(table["cell_id"].to_pylist()))
        self._progress = progress
        # Of one metric, since of a large sweep it has hundreds of megabytes.
        self._metric: str | None = None
        self._values: PromptValues | None = None
        self._places: NDArray[np.int64] = np.empty(0, np.int64)

    def read(self, metric: str, rows: NDArray[np.int64]) -> tuple[Reals | None, str]:
        """Return the values (rows, prompts) of some rows of the table; or None, and why."""
        if metric not in self._source.metrics:
            return None, f"{metric} is no mean over single prompts: what is said of it is said on these prompts"
        values = self._of(metric)
        sets = np.unique(values.sets[rows])
        if sets[0] < 0:
            return None, "; ".join(values.problems)
        if len(sets) > 1:
            return None, "its cells were measured on different prompts; to speak of new ones, name their axis in `by`"
        return values.by_set[sets[0]].values[self._places[rows]], ""

    def _of(self, metric: str) -> PromptValues:
        if self._values is None or self._metric != metric:
            self._values = None
            self._values, self._metric = self._source.read(metric, self._cells, self._progress), metric
            self._places = np.empty(len(self._cells), np.int64)
            for each in self._values.by_set:
                self._places[each.cells] = np.arange(len(each.cells))
        return self._values
