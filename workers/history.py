"""The training curve that a stage writes beside its result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.tables import HISTORY

#: Prefixes of the metrics that the trainers of transformers log once, at the end, of the whole training.
_TOTALS = ("train_", "total_flos")


def write_history(log: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write `history.parquet` (`tables.HISTORY`).

    Values that depend on the clock are left out, so that the same training gives the same bytes, and so are values that
    are not finite, such as the gradient norm of a step that mixed precision skipped. A metric has one value per
    training step, the last logged.

    Args:
        log: `trainer.state.log_history` of a trainer of transformers: one mapping per logged training step, with
            "step" among its names.
        out: the folder of the artifact.
    """
    # The last entry repeats values of the last training step.
    points = {
        (int(entry["step"]), name): float(value)
        for entry in log
        for name, value in entry.items()
        if name != "step" and not name.startswith(_TOTALS) and math.isfinite(float(value))
    }
    steps, metrics = zip(*points, strict=True) if points else ((), ())
    HISTORY.write({"step": steps, "metric": metrics, "value": [*points.values()]}, out)
