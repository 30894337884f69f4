"""Finds mistakes in how steps share a GPU: a part of one, of whose memory each has a stated part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from orchestrator.sweep.part import matches
from orchestrator.sweep.problems import DocPath, Problem, told
from orchestrator.sweep.spec import SweepSpec


def shared_gpu_problems(spec: SweepSpec) -> list[Problem]:
    """Find the entries that ask for a part of a GPU and not for a part of its memory, or for one and a half of them."""
    found: dict[DocPath, str] = {}
    for name in spec.stages if spec.understood("runtime") else ():
        for where, message in _entry_problems(spec, name):
            found.setdefault(where, message)
    return told(spec.problem(where, message) for where, message in found.items())


def _entry_problems(spec: SweepSpec, name: str) -> Iterator[tuple[DocPath, str]]:
    """Yield where an entry asks for a part of a GPU, and what is wrong with that."""
    layers = [(each, spec.runtime[each]) for each in ("default", name) if each in spec.runtime]
    written: list[Any] = [part for _, layer in layers for part in (layer, *layer.rules)]
    if not any(part.gpus and part.gpus % 1 for part in written):
        return
    axes = [axis for axis in spec.runtime_axes(name) if axis in spec.axes]
    for labels in product(*(spec.labels(axis) for axis in axes)):
        coords = dict(zip(axes, labels, strict=True))
        runtime = spec.runtime_of(name, coords)
        if runtime.gpus % 1 == 0 or (runtime.gpus < 1 and runtime.gpu_memory):
            continue
        places: list[tuple[DocPath, Any]] = []
        for layer_name, layer in layers:
            places.append((("runtime", layer_name), layer))
            for index, rule in enumerate(layer.rules):
                if matches(rule.at, coords):
                    places.append((("runtime", layer_name, "rules", index), rule))
        where = [(*place, "gpus") for place, part in places if part.gpus is not None][-1]
        yield where, _message(runtime.gpus, name)


def _message(gpus: float, name: str) -> str:
    if gpus > 1:
        return f"is {gpus:g}; a step has whole GPUs, or a part of one that it shares with others: write 1, 2 or 0.5"
    return (
        f"is {gpus:g}, so a step of {name!r} shares a GPU with others and must say how much of its memory it may use: "
        "write gpu_memory: 20GiB beside it, or what it needs"
    )
