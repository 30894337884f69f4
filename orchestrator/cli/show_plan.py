"""What `sweep plan` and `sweep why` print for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.cli.console import console, counted, paragraph, say, table
from orchestrator.explain.eta import Eta, format_eta
from orchestrator.explain.other_code import OtherCode, format_other_code
from orchestrator.plan.select import format_coords
from orchestrator.session import Session


def show_plan(session: Session, report: Mapping[str, Any]) -> None:
    """Print the cells and steps of a plan, their expected cost, and why they are to be run."""
    axes = " × ".join(f"{len(session.spec.labels(axis))} {axis}" for axis in session.spec.axes)
    say((session.spec.name, "bold"), f": {session.spec.question}")
    points = len(session.plan.points)
    combinations = math.prod(len(session.spec.labels(axis)) for axis in session.spec.axes)
    cells = f"{report['cells']:,} of {points:,} cells" if report["cells"] < points else counted(points, "cell")
    excluded = f", {combinations - points:,} of {combinations:,} excluded" if points < combinations else ""
    search = report.get("search")
    if search:
        _say_what_is_searched(report["cells"], search)
    else:
        say(f"{cells} ({axes}{excluded})")
    steps, expected = report["steps"], report["expected"]
    costs = any("expected" in each for each in steps.values())
    totals = {name: sum(each[name] for each in steps.values()) for name in ("total", "committed", "to_run")}
    totals |= {name: sum(each.get(name, 0) for each in steps.values()) for name in ("failed", "blocked", "may_come")}
    rows = [[name, *_counts(each), *_cost_of(each, costs)] for name, each in steps.items()]
    rows.append(["all", *_counts(totals), "", *(_cost(expected, expected["unknown_steps"]) if costs else [""] * 3)])
    headings = [
        "stage",
        "steps",
        "committed",
        "to run",
        "failed",
        "blocked",
        "may come",
        "each",
        "CPU-hours",
        "GPU-hours",
        "disk",
    ]
    console.print(table(headings, rows))
    low, high = expected["wall_seconds"]
    eta = Eta(low, high, expected["unknown_steps"], expected["steps"])
    if costs:
        basis = "estimated from finished steps with the same models, data and settings"
        say(f"on these machines (--cpus, --gpus): {format_eta(eta)}; {basis}")
    elif eta.steps:
        say(f"{format_eta(eta)}: no step with the same models, data and settings has finished")
    _say_what_may_come(report)
    reasons = [(name, reason, count) for name, each in steps.items() for reason, count in each["reasons"].items()]
    if any(reason != "never run" for _, reason, _ in reasons):
        say("why they are to be run:")
        for name, reason, count in reasons:
            say(f"  {name} {count:,}: {reason}")
    for each in report["other_code"]:
        say(format_other_code(session, OtherCode(**each)), style="yellow")
    say(f"store: {session.outputs.store}")


def _counts(each: Mapping[str, int]) -> list[str]:
    always = [f"{each[name]:,}" for name in ("total", "committed", "to_run")]
    return always + [f"{each[name]:,}" if each.get(name) else "" for name in ("failed", "blocked", "may_come")]


def _say_what_is_searched(cells: int, search: Mapping[str, Any]) -> None:
    """Say how many cells a search has at most, and what is to be known before it is run."""
    parts = [f"{counted(search['trials'], 'trial')}", f"{counted(search['repetitions'], 'repetition')}"]
    studies = "1 study" if search["studies"] == 1 else f"{search['studies']:,} studies"
    again = f", each best one again at {counted(search['fresh'], 'fresh value')}" if search["fresh"] else ""
    up_to = f"up to {cells + search['may_come']:,} cells" if search["may_come"] else counted(cells, "cell")
    decided = f"{cells:,} decided, up to {search['may_come']:,} may come" if search["may_come"] else "all decided"
    if search["unfinished"] and not search["may_come"]:
        decided = "no more come, since a trial is run only where all of its repetitions are chosen"
    paragraph((search["name"], "bold"), f": {' × '.join([studies, *parts])}{again}: {up_to}; {decided}")
    for note in search["notes"]:
        paragraph((note, "yellow"))


def _say_what_may_come(report: Mapping[str, Any]) -> None:
    """Say what all that may come costs, so far as that is known."""
    coming = {name: each for name, each in report["steps"].items() if each.get("may_come")}
    if not coming:
        return
    unknown = sum(each.get("expected_to_come", {}).get("unknown", each["may_come"]) for each in coming.values())
    steps, cost = sum(each["may_come"] for each in coming.values()), report["expected_to_come"]
    if unknown == steps:
        paragraph(f"what may come, at most {counted(steps, 'step')}: cost unknown, none like them has finished")
        return
    cpu, gpu, disk = _cost(cost, 0)
    known = ", ".join([f"{cpu} CPU-hours", *([f"{gpu} GPU-hours"] if gpu else []), disk])
    rest = f", and {unknown:,} of them unknown" if unknown else ""
    low, high = cost["wall_seconds"]
    eta = Eta(low, high, cost["unknown_steps"], cost["steps"])
    paragraph(f"what may come, at most {counted(steps, 'step')}: {known}{rest}; with all of it {format_eta(eta)}")


def _cost_of(each: Mapping[str, Any], costs: bool) -> list[str]:
    """The cost of the steps of an entry that are to be run, of one and of all."""
    cost = each.get("expected")
    if cost:
        return [f"{cost['seconds']:.3g} s", *_cost(cost, cost["unknown"])]
    return ["?" if costs and each["to_run"] else ""] * 4


def _cost(cost: Mapping[str, Any], unknown: int) -> list[str]:
    """CPU-hours, GPU-hours and disk; what is unknown comes on top."""
    more = "≥ " if unknown else ""
    size, gpu_hours = cost["bytes"], cost["gpu_hours"]
    disk = f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
    return [f"{more}{cost['cpu_hours']:.3g}", f"{more}{gpu_hours:.3g}" if gpu_hours or unknown else "", f"{more}{disk}"]


def show_explanation(session: Session, explanation: Mapping[str, Any]) -> None:
    """Print all that is known of one cell."""
    say(f"{format_coords(explanation['coords'])}  ", (explanation["cell_id"], "bold"), f" {explanation['status']}")
    rows, reasons = [], []
    for step in explanation["steps"]:
        last = step["attempts"][-1] if step["attempts"] else None
        seconds, attempts = (f"{last['seconds']:.1f}" if last else ""), str(len(step["attempts"]) or "")
        key = step["key"][:16]
        rows.append([step["entry"], key, step["state"], counted(step["cells"], "cell"), attempts, seconds])
        if step["because"]:
            reasons.append(f"  {step['entry']} {key}: {step['because']}")
    console.print(table(["stage", "key", "state", "shared by", "attempts", "seconds"], rows, keys=2))
    if reasons:
        say("why they are to be run:")
        for reason in reasons:
            say(reason)
    if explanation["error"]:
        say((explanation["error_class"], "red"), f": {explanation['error']}")
        if explanation["log"]:
            say(f"log: {explanation['log']}")
    which = "last step here again, committing nothing" if explanation["status"] == "succeeded" else "next step here"
    say(f"run its {which}: {session.command('debug', explanation['cell_id'])}")
