"""Figures of studies, Optuna's own: as pictures, and as figures of plotly for a page that can be looked into.

They show the first metric where there are several, but for the history: its place takes the front of best compromises.
"""

from __future__ import annotations

import io
import math
import sys
from typing import TYPE_CHECKING, Any

import optuna

from orchestrator.search.optuna_study import as_optuna
from orchestrator.search.parts import make_importance
from orchestrator.search.quiet import quiet
from orchestrator.search.trial import Study, Trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import FrozenTrial


def history_png(study: Study) -> bytes | None:
    """Draw the objective of each trial and the best so far; of two or three metrics the best compromises.

    Returns:
        A PNG; None where too few trials are complete, or there are more than three metrics.
    """
    if not _shows_history(study):
        return None
    return _png(lambda: _history(study, _pictures()))


def importance_png(study: Study) -> bytes | None:
    """Draw how much each field matters, as the importance evaluator of the search says.

    Returns:
        A PNG; None where it cannot be told yet, as for `importances`.
    """
    if importances(study) is None:
        return None
    return _png(
        lambda: _pictures().plot_param_importances(
            as_optuna(study), evaluator=make_importance(study.search), target=_first, target_name=_name(study)
        )
    )


def history(study: Study) -> Any:
    """Return the figure of `history_png` for a page, one of plotly's, which must be there; else None."""
    if not _shows_history(study):
        return None
    with quiet():
        return _history(study, optuna.visualization)


def parallel_coordinates(study: Study) -> Any:
    """Return a figure with a line for each trial, across an axis for each field that all of them have.

    It is one of plotly's, which must be there. None where too few trials are complete.
    """
    if len(_finite(study)) < _FEWEST or not study.search.fields:
        return None
    # With a target of its own, Optuna draws low values darkest, whichever are better.
    target = _first if len(study.search.objective.metrics) > 1 else None
    with quiet():
        return optuna.visualization.plot_parallel_coordinate(as_optuna(study), target=target, target_name=_name(study))


def importances(study: Study) -> dict[str, float] | None:
    """Return how much each field matters, as the importance evaluator of the search says: shares whose sum is 1.

    Returns:
        Field -> its share, the largest first. None where it cannot be told: fewer than two trials are complete and
        have a finite objective, or all have the same, or the trials differ in no field.
    """
    found = _finite(study)
    fields = {name: {each.values.get(name) for each in found} for name in study.search.fields}
    if len({(trial.objectives or (0.0,))[0] for trial in found}) < _FEWEST:
        return None
    if all(len(values) < _FEWEST for values in fields.values()):
        return None
    with quiet():
        try:
            told = optuna.importance.get_param_importances(
                as_optuna(study), evaluator=make_importance(study.search), target=_first
            )
        except (ValueError, RuntimeError):
            # Each evaluator has conditions of its own on how many trials there are, and how they differ.
            return None
    shares = {name: float(share) for name, share in told.items()}
    return shares if shares and all(map(math.isfinite, shares.values())) else None


#: Trials that a figure shows at least.
_FEWEST = 2


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _name(study: Study) -> str:
    return study.search.objective.metrics[0]


def _finite(study: Study) -> list[Trial]:
    return [
        each for each in study.trials if each.state == "complete" and all(map(math.isfinite, each.objectives or ()))
    ]


def _shows_history(study: Study) -> bool:
    return len(_finite(study)) >= _FEWEST and len(study.search.objective.metrics) <= 3


def _history(study: Study, drawing: Any) -> Any:
    shown = as_optuna(study)
    if len(study.search.objective.metrics) > 1:
        return drawing.plot_pareto_front(shown, target_names=list(study.search.objective.metrics))
    return drawing.plot_optimization_history(shown, target_name=_name(study))


def _pictures() -> Any:
    """Return the half of Optuna that draws with matplotlib."""
    import matplotlib

    if "matplotlib.pyplot" not in sys.modules:
        # A driver has no screen; a notebook keeps what it shows its own pictures with.
        matplotlib.use("Agg")
    from optuna.visualization import matplotlib as drawing

    return drawing


def _png(draw: Callable[[], Any]) -> bytes:
    import matplotlib

    written = io.BytesIO()
    # Optuna sets the style of all pictures that the process will draw.
    with quiet(), matplotlib.rc_context():
        figure = draw().figure
        try:
            figure.savefig(written, format="png", dpi=120, bbox_inches="tight")
        finally:
            from matplotlib import pyplot

            pyplot.close(figure)
    return written.getvalue()
