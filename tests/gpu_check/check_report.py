"""The report of all checks, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from check_record import Figure, Outcome
from check_runner import Result
from time_budget import duration


def write_report(results: Sequence[Result], about: Mapping[str, Any], folder: Path) -> None:
    """Write `report.json` and `report.md`.

    Args:
        results: of all checks, in order.
        about: `date`, `commit`, `seconds`, `budget_seconds` and `machine` (`gpu_machine.describe_machine`).
        folder: where to write.
    """
    whole = {**about, "checks": [_as_json(result) for result in results]}
    (folder / "report.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(as_markdown(results, about), encoding="utf-8")


def as_markdown(results: Sequence[Result], about: Mapping[str, Any]) -> str:
    """Return the report for people; arguments are those of `write_report`."""
    machine = about["machine"]
    lines = [
        "# GPU check", "",
        f"Written by `make gpu-check` on {about['date']}: {count(results)}, in {duration(about['seconds'])} of at most"
        f" {duration(about['budget_seconds'])}. Send this file back together with `report.json`.", "",
        "| | |", "|---|---|",
        *(f"| {name} | {cell(str(value))} |" for name, value in _about(about, machine)), "",
    ]  # fmt: skip
    for result in results:
        took = f", {duration(result.seconds)}" if result.seconds else ""
        lines += [f"## {result.check.name}: {result.outcome}{took}", ""]
        if len(result.findings) == 1 and result.outcome is Outcome.SKIPPED:
            lines += [cell(result.findings[0].note), ""]
            continue
        lines += ["| | outcome | seen | figures |", "|---|---|---|---|"]
        for each in result.findings:
            outcome = each.outcome.value if each.outcome is Outcome.OK else f"**{each.outcome.value}**"
            figures = "; ".join(_figure(one) for one in each.figures)
            lines.append(f"| {cell(each.name)} | {outcome} | {cell(each.note)} | {cell(figures)} |")
        lines.append("")
    return "\n".join(lines)


def count(results: Sequence[Result]) -> str:
    """Return how many findings have each outcome."""
    found = Counter(each.outcome for result in results for each in result.findings)
    return ", ".join(f"{found[outcome]} {outcome}" for outcome in Outcome)


def cell(text: str) -> str:
    """Return a text as it may stand in a cell of a table: on one line, as it is, and not as Markdown or HTML."""
    flat = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    for character in "\\`*_[]<>|":
        flat = flat.replace(character, f"\\{character}")
    return flat


def _about(about: Mapping[str, Any], machine: Mapping[str, Any]) -> list[tuple[str, object]]:
    devices = [
        f"{each['name']} (capability {each['capability']}, {each['multiprocessors']} multiprocessors, "
        f"{each['free_bytes'] / 2**30:.1f} of {each['memory_bytes'] / 2**30:.1f} GiB free at the start)"
        for each in machine.get("devices", ())
    ]
    memory = machine.get("memory_bytes")
    return [
        ("GPU", "; ".join(devices) or f"none: {machine.get('no_device', 'unknown')}"),
        ("nvidia-smi", "; ".join(machine.get("nvidia_smi", ())) or "unknown"),
        ("CUDA of torch", machine.get("cuda", "unknown")),
        ("processor", f"{machine.get('cores', 'unknown')} cores, {machine.get('processor', 'unknown')}"),
        ("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown"),
        ("system", machine.get("platform", "unknown")),
        ("Python", machine.get("python", "unknown")),
        ("libraries", ", ".join(f"{name} {version}" for name, version in machine.get("libraries", {}).items())),
        ("commit", about["commit"]),
    ]


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "check": result.check.name,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 1),
        "findings": [
            {name: value for name, value in each.as_json().items() if name != "check"} for each in result.findings
        ],
    }


def _figure(figure: Figure) -> str:
    return f"{figure.name} {figure.value:,.4g} {figure.unit}".strip()
