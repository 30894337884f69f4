"""Dependencies between the entries of a sweep, by the names that they give."""

from __future__ import annotations

from orchestrator.plan.references import axes_of
from orchestrator.sweep.spec import Entry, SweepSpec


def sources(entry: Entry) -> tuple[str, ...]:
    """Return the entries that an entry names."""
    return (*entry.inputs.values(), *([entry.otherwise] if entry.otherwise else []))


def order(spec: SweepSpec) -> list[str]:
    """Return the entry names, each after those that feed it or stand in for it.

    Raises:
        ValueError: there is a cycle; the message names its entries.
    """
    done: dict[str, None] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        if name in done:
            return
        if name in path:
            raise ValueError(" -> ".join([*path[path.index(name) :], name]))
        path.append(name)
        for source in sources(spec.stages[name]):
            if source in spec.stages:
                visit(source)
        path.pop()
        done[name] = None

    for name in spec.stages:
        visit(name)
    return list(done)


def targets(spec: SweepSpec) -> tuple[str, ...]:
    """Return the entries that feed no other, in dependency order."""
    fed = {source for entry in spec.stages.values() for source in sources(entry)}
    return tuple(name for name in order(spec) if name not in fed)


def own_axes(spec: SweepSpec, name: str) -> frozenset[str]:
    """Return the axes that an entry itself names, not those of its inputs."""
    entry = spec.stages[name]
    return axes_of(spec, [entry.stage, entry.when, entry.shards, entry.config])
