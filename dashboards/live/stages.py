"""The table of stages of the live page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from orchestrator.explain.eta import format_eta_short


def stages_shown(stages: list[dict[str, Any]]) -> pd.DataFrame:
    """Return `Watch.stages` as a table for people: counts of nothing are empty, times have units."""

    def count(number: int) -> int | None:
        return number or None

    return pd.DataFrame(
        {
            "stage": each["stage"],
            # Rounded down: 100 is all of them. Of no step nothing is said.
            "done": 100 * each["committed"] // each["total"] if each["total"] else None,
            "committed": f"{each['committed']:,} / {each['total']:,}",
            "running": count(each["running"] + each["elsewhere"]),
            "failed": count(each["failed"]),
            "blocked": count(each["blocked"]),
            "per_minute": round(each["per_minute"], 1) or None if each["per_minute"] is not None else None,
            "seconds": "" if each["seconds"] is None else format_short_duration(each["seconds"]),
            "left": format_eta_short(each["left"], format_short_duration) if each["left"] else "",
        }
        for each in stages
    )


def format_short_duration(seconds: float) -> str:
    """Format a duration for a narrow column: 0.11 s, 58 s, 3.0 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
