"""One cell of the live page: its steps, attempts and logs."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from upath import UPath

from dashboards.live.watch import Look
from orchestrator.explain import why
from orchestrator.texts import plain_text

#: So many bytes of the end of a log are shown.
_TAIL = 20_000


def explain(look: Look, text: str) -> dict[str, Any]:
    """Return all that is known of one cell (`explain.why.explain`), with its status as of now and its `metrics`.

    `first_log` names the log to look at first, in the words of `logs`.

    Raises:
        SweepError: there is no such cell.
    """
    found: dict[str, Any] = why.explain(replace(look.session), text)
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


def tail(place: str) -> str:
    """Read the end of a log: at most 20 kB, without control sequences; where it cannot be read, say so."""
    path = UPath(place) if "://" in place else Path(place)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - _TAIL, 0))
            text = plain_text(stream.read().decode(errors="replace"))
    except OSError as error:
        return f"({place} cannot be read: {error.strerror or error})"
    return text if size <= _TAIL else f"… the last {_TAIL // 1000} of {size // 1000} kB\n" + text.partition("\n")[2]
