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
    for start in spec.stages:
        # Entry -> those that feed it and have yet to be looked at; each is fed by the next. A chain may be long.
        path = {start: iter(sources(spec.stages[start]))} if start not in done else {}
        while path:
            name = next(reversed(path))
            source = next(path[name], None)
            if source is None:
                del path[name]
                done[name] = None
            elif source in path:
                entries = list(path)
                raise ValueError(" -> ".join([*entries[entries.index(source) :], source]))
            elif source in spec.stages and source not in done:
                path[source] = iter(sources(spec.stages[source]))
    return list(done)


def targets(spec: SweepSpec) -> tuple[str, ...]:
    """Return the entries that feed no other, in dependency order."""
    fed = {source for entry in spec.stages.values() for source in sources(entry)}
    return tuple(name for name in order(spec) if name not in fed)


def own_axes(spec: SweepSpec, name: str) -> frozenset[str]:
    """Return the axes that an entry itself names, not those of its inputs."""
    entry = spec.stages[name]
    return axes_of(spec, [entry.stage, entry.when, entry.shards, entry.config])
