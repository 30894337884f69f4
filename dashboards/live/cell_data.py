"""One cell of the live page: its steps, attempts and logs, and what it made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pandas as pd

from dashboards.live.watch import Look, Watch
from orchestrator.explain import why
from orchestrator.explain.shown import show


def explain(look: Look, text: str) -> dict[str, Any]:
    """Return all that is known of one cell (`explain.why.explain`), with its status as of now and its `metrics`.

    `first_log` names the log to look at first, in the words of `logs`.

    Raises:
        SweepError: there is no such cell.
    """
    found: dict[str, Any] = why.explain(look.anew(), text)
    row = look.cells[look.cells["cell_id"] == found["cell_id"]].iloc[0]
    found["status"] = str(row["status"])
    found["metrics"] = {name: float(row[name]) for name in look.metrics if pd.notna(row[name])}
    found["first_log"] = next((name for name, each in logs(found).items() if each["log"] == found["log"]), None)
    return found


def steps_shown(found: dict[str, Any]) -> pd.DataFrame:
    """Return the steps of an explained cell as a table for people: one row per stage, its shards taken together."""
    rows = []
    for entry in dict.fromkeys(step["entry"] for step in found["steps"]):
        steps = [step for step in found["steps"] if step["entry"] == entry]
        states = Counter("damaged" if step["damage"] else step["state"] for step in steps)
        state = next(iter(states)) if len(states) == 1 else ", ".join(f"{n} {state}" for state, n in states.items())
        attempts = [attempt for step in steps for attempt in step["attempts"]]
        rows.append(
            {
                "stage": entry,
                "state": state,
                "key": steps[0]["key"][:16] if len(steps) == 1 else f"{len(steps)} shards",
                "cells": steps[0]["cells"],
                "attempts": len(attempts) or None,
                "seconds": sum(each["seconds"] for each in attempts) if attempts else None,
                "because": next((step["damage"] or step["because"] for step in steps
                                 if step["damage"] or step["because"]), None),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def logs(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the attempts of an explained cell that left a log, by a name for people."""
    counts: dict[str, int] = {}
    named = {}
    for step in found["steps"]:
        counts[step["entry"]] = counts.get(step["entry"], 0) + 1
        several = sum(each["entry"] == step["entry"] for each in found["steps"]) > 1
        shard = f" shard {counts[step['entry']]}" if several else ""
        for attempt in step["attempts"]:
            if attempt["log"]:
                named[f"{step['entry']}{shard}, attempt {attempt['number']}: {attempt['outcome']}"] = attempt
    return named


def made(watch: Watch, found: Mapping[str, Any], entry: str | None) -> dict[str, Any]:
    """Return what an explained cell made (`explain.shown.show`); read again only when a step of it changed.

    Raises:
        SweepError: there is no such cell or entry any more.
        StoreError: the store cannot be read.
        OSError: the sweep file cannot be read.
    """
    steps = ((step["key"], step["state"], step["damage"], len(step["attempts"])) for step in found["steps"])
    return _made(watch, found["cell_id"], entry, tuple(steps))


@lru_cache(maxsize=16)
def _made(watch: Watch, cell: str, entry: str | None, steps: tuple[object, ...]) -> dict[str, Any]:
    return show(watch.look().anew(), cell, entry)
