"""What `sweep show` prints for people: what a cell made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from orchestrator.cli.console import console, counted, paragraph, say, table
from orchestrator.plan.select import format_coords
from orchestrator.results.format import format_value
from orchestrator.texts import plain_text

#: Characters of a text that are shown, of a whole cell and of one entry.
_BRIEF, _FULL = 400, 4000
#: Files of an artifact that are listed.
_FILES = 20
_BARS = "▁▂▃▄▅▆▇█"
#: Columns of a curve.
_POINTS = 32
#: Rows of long texts that are shown of an entry beside others.
_BRIEF_ROWS = 2
#: A table whose values are no longer than this is drawn as one.
_SHORT = 24

_STYLES = {"committed": "green", "failed": "red", "damaged": "red", "blocked": "yellow", "running": "blue"}
_WORDS = {"pending": "not there yet", "unneeded": "not there, and not needed: what reads it is", "elsewhere": "running"}

_View = Mapping[str, Any]


def show_cell(shown: Mapping[str, Any], whole: bool) -> None:
    """Print what a cell made.

    Args:
        shown: of `explain.shown.show`.
        whole: print everything of its entries: files, places, texts in full length.
    """
    paragraph(f"{format_coords(shown['coords'])}  ", (shown["cell_id"], "bold"), f" {shown['status']}")
    for entry in shown["entries"]:
        say("")
        _entry(entry, whole)
    say("")
    if not whole:
        say(f"all of one entry: --stage {shown['entries'][-1]['entry']}")
    links = shown["links"]
    say(f"table: {links['results']}")
    if links["mlflow"]:
        say(f"MLflow: {links['mlflow']}, experiment {links['experiment']}, tag sweep.cell_id = {shown['cell_id']}")


def _entry(entry: Mapping[str, Any], whole: bool) -> None:
    several, state = entry["shards"] > 1, entry["state"]
    words = _WORDS.get(state, state)
    if state == "partial":
        words = ", ".join(f"{count} {_WORDS.get(each, each)}" for each, count in entry["states"].items())
    shards = f", {counted(entry['shards'], 'shard')}" if several else ""
    seconds = [step["seconds"] for step in entry["steps"] if step["seconds"] is not None]
    took = f", {sum(seconds):.1f} s" if seconds else ""
    stage = "" if entry["stage"] == entry["entry"] else f" (stage {entry['stage']})"
    paragraph((entry["entry"], "bold"), f"{stage}: ", (words, _STYLES.get(state, "")), f"{shards}{took}")
    if entry["step_of"]:
        paragraph(f"is the step of {entry['step_of']}", indent=2)
        if not whole and not entry["views"]:
            return
    if entry["inputs"] and whole:
        _pairs("inputs", {name: "+".join(entries) for name, entries in entry["inputs"].items()})
    if not whole and state in ("pending", "unneeded"):
        return
    config = {name: _shortened(value, whole) for name, value in _flat(entry["config"]) if whole or value != "null"}
    _pairs("config", config)
    _pairs("metrics", {name: format_value(value) for name, value in entry["metrics"].items()})
    for name, reason in entry["undefined"].items():
        paragraph(f"{name} is undefined: {reason}", indent=2)
    for number, step in enumerate(entry["steps"], 1):
        where = f"shard {number} of {entry['shards']}: " if several else ""
        if whole and step["location"]:
            _place(step, where)
        if step["damage"]:
            paragraph(f"{where}{step['damage']}", indent=2)
        if step["error"] or step["error_class"]:
            _failure(step, where)
    if whole and entry["files"]:
        files = [f"{each['name']} ({each['bytes']:,} B)" for each in entry["files"]]
        more = [f"… {len(files) - _FILES:,} more"] if len(files) > _FILES else []
        paragraph(f"files: {', '.join(files[:_FILES] + more)}", indent=2)
        _pairs("versions", entry["versions"])
    if entry["views"] and several:
        paragraph(f"shard {entry['shard'] + 1} of {entry['shards']} holds:", indent=2)
    for view in entry["views"]:
        if whole:
            say("")
        _VIEWS[view["view"]](view, whole)


def _place(step: Mapping[str, Any], where: str) -> None:
    commit = f", code {step['code_commit']}" if step["code_commit"] else ""
    paragraph(f"{where}attempt {step['attempt']} on {step['host']}, {step['seconds']:.1f} s{commit}", indent=2)
    # Places stay on one line, to be copied.
    say(f"  {step['location']}")
    if step["log"]:
        say(f"  log: {step['log']}")


def _failure(step: Mapping[str, Any], where: str) -> None:
    paragraph(f"{where}attempt {step['attempt']}: {step['error_class']}: {step['error']}", indent=2)
    if step["log"]:
        say(f"  log: {step['log']}")
    for line in (step["log_tail"] or "").splitlines():
        paragraph(line, indent=4)


# --- views


def _table(view: _View, whole: bool) -> None:
    rows = [[_cell(value) for value in row] for row in view["rows"]]
    narrow = all(cell_len(value) <= _SHORT and "\n" not in value for row in rows for value in row)
    rows = rows if narrow or whole else rows[:_BRIEF_ROWS]
    count, total = len(rows), view["total"]
    of = "" if total is None else f" of {total:,}"
    split = f" {view['which']}" if view["which"] != "first" else ""
    wide = f", the first {len(view['columns'])}" if len(view["columns"]) < view["width"] else ""
    paragraph(f"{view['file']}: {count}{of} rows{split}, {counted(view['width'], 'column')}{wide}", indent=2)
    if narrow:
        console.print(table(view["columns"], rows))
        return
    for number, row in enumerate(rows, 1):
        paragraph(f"row {number}", indent=4)
        for column, value in zip(view["columns"], row, strict=True):
            _text(f"{column}: ", value, whole, 6)


def _cell(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "null" if value is None else format_value(value)


def _curve(view: _View, whole: bool) -> None:
    curves = view["curves"]
    if not whole:
        moving = [curve for curve in curves if curve["points"] > 1]
        curves = [curve for curve in moving if "loss" in curve["metric"]] or moving[:1]
    width = max((len(curve["metric"]) for curve in curves), default=0)
    for curve in curves:
        values = curve["values"]
        ends = f"{format_value(values[0])} → {format_value(values[-1])}"
        steps = f"steps {curve['steps'][0]:,} to {curve['steps'][-1]:,}"
        paragraph(f"{curve['metric']:<{width}}  {sparkline(values)}  {ends}  {steps}", indent=2)
    if not curves and whole:
        paragraph(f"{view['file']}: no point of a curve", indent=2)


def sparkline(values: Sequence[float], width: int = _POINTS) -> str:
    """Draw a curve as blocks of eight heights, thinned out evenly to a width; one that is level is drawn low."""
    last, count = len(values) - 1, min(len(values), width)
    shown = [values[round(place * last / max(count - 1, 1))] for place in range(count)]
    low, high = min(shown), max(shown)
    return "".join(_BARS[int((value - low) / (high - low) * 7.999) if high > low else 0] for value in shown)


def _file_text(view: _View, whole: bool) -> None:
    paragraph(f"{view['file']}: {'' if view['whole'] else 'the beginning of '}{view['bytes']:,} B", indent=2)
    paragraph(_shortened(view["text"], whole), indent=4, hanging=0)


def _array(view: _View, whole: bool) -> None:
    shape = " × ".join(f"{size:,}" for size in view["shape"]) or "one value"
    span = ""
    if view["low"] is not None:
        span = f", from {format_value(view['low'])} to {format_value(view['high'])}, mean {format_value(view['mean'])}"
    seen = f" (of the first {view['values']:,} values)" if view["values"] < view["total"] and span else ""
    bad = f", {view['not_finite']:,} not finite" if view["not_finite"] else ""
    paragraph(f"{view['file']}: {shape}, {view['dtype']}{span}{seen}{bad}", indent=2)


def _responses(view: _View, whole: bool) -> None:
    count, each = len(view["prompts"]), view["each"]
    paragraph(
        f"{view['file']}: {count} of {counted(view['total'], 'prompt')}, {counted(each, 'response')} to each", indent=2
    )
    for name in ("golden", "learned"):
        entry, note = view[name]["entry"], view[name]["note"]
        paragraph(f"{name} rewards: {' – '.join(part for part in (entry, note) if part)}", indent=2)
    for prompt in view["prompts"]:
        _text(f"prompt {prompt['prompt_id']}: ", prompt["prompt"], whole, 4)
        for response in prompt["responses"]:
            rewards = [
                f"{name} {_reward(response[name])}" for name in ("golden", "learned") if response[name] is not None
            ]
            beside = f" ({', '.join(rewards)})" if rewards else ""
            _text(f"response {response['response_id']}{beside}: ", response["response"], whole, 6)


def _reward(value: float) -> str:
    return f"{value:+.3f}"


def _judgments(view: _View, whole: bool) -> None:
    source = f", verdicts of {view['verdicts']}" if view["verdicts"] else ""
    paragraph(f"{view['file']}: {len(view['judgments'])} of {counted(view['total'], 'judgment')}{source}", indent=2)
    for each in view["judgments"]:
        _text("prompt: ", each["prompt"], whole, 4)
        for number, name in enumerate(("first", "second"), 1):
            chosen = " (chosen)" if each["chosen"] == number else ""
            _text(f"answer {number}{chosen}: ", each[name], whole, 6)
        hint = f" (hint: {each['hint']})" if each["hint"] else ""
        said = f"unread: {each['unread']}" if each["unread"] else each["text"].strip() or "(no text)"
        _text(f"judgment{hint}: ", said, whole, 6)
        verdict = {None: "not read yet", 0: "none"}.get(each["verdict"], f"answer {each['verdict']}")
        right = "" if not each["chosen"] or not each["verdict"] else _verdict(each["chosen"] == each["verdict"])
        paragraph(f"verdict: {verdict}{right}", indent=6)


def _verdict(right: bool) -> str:
    return ", as chosen" if right else ", against the chosen one"


def _unshown(view: _View, whole: bool) -> None:
    paragraph(f"{view['file']} {view['reason']}", indent=2)


_VIEWS = {
    "table": _table, "curve": _curve, "text": _file_text, "array": _array, "responses": _responses,
    "judgments": _judgments, "unshown": _unshown,
}  # fmt: skip


# --- lines


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the fields of a config with their paths: {"a": {"b": 1}} -> ("a.b", "1")."""
    if isinstance(value, Mapping) and (value or not path):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    else:
        # A text with blanks in it needs quotation marks to be told from what follows.
        word = isinstance(value, str) and value and not any(each.isspace() for each in value)
        yield path, value if word else json.dumps(value, ensure_ascii=False)


def _pairs(title: str, pairs: Mapping[str, str]) -> None:
    if pairs:
        paragraph(f"{title}: {', '.join(f'{name}={value}' for name, value in pairs.items())}", indent=2)


def _text(label: str, text: str, whole: bool, indent: int) -> None:
    """Print a text below its label, without empty lines, shortened unless all of it is wanted."""
    lines = [line.rstrip() for line in plain_text(text).splitlines() if line.strip()]
    paragraph(label + _shortened("\n".join(lines).strip(), whole), indent=indent)


def _shortened(text: str, whole: bool) -> str:
    limit = _FULL if whole else _BRIEF
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
