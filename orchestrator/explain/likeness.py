"""Which steps cost alike, so that one that is finished tells how long another will take.

Two steps do if nothing tells them apart but what is drawn at random, neither in their stages, versions and configs nor
in those of all that they read: a step on one model, data set or setting says nothing of another (several say roughly
what to expect, `Throughput.eta`). The trials of a study are taken to cost alike, whatever was chosen: what those to
come will choose is not known.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.keys import canonical_json, digest_of
from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Numbers
from orchestrator.store import Store
from orchestrator.types import Artifact, Manifest
from workers.stage import Stage

#: Fields of a config, however deep, that say which draw it is: others of the same size cost the same.
_DRAWS = frozenset({"seed", "shard", "member"})


#: A stage, its version or source, and its config without draws.
_Work = tuple[str, int | str | None, str]


class Likeness:
    """The kinds of the steps of a plan; steps of the same kind cost alike."""

    def __init__(self, plan: Plan) -> None:
        """Find the kind of every step, from what it is and what it reads."""
        self.plan = plan
        self.classes: Numbers = np.zeros(len(plan), np.int32)
        """For each step, its class: the steps of one kind in one entry."""
        self.kinds: list[str] = []
        """For each class, its kind: a digest that is the same in all sweeps."""
        self.entries: list[str] = []
        """For each class, its entry."""
        for name, entry in plan.by_entry.items():
            if entry.first == entry.last:
                continue
            spelled: dict[_Work, int] = {}
            own = [
                spelled.setdefault(
                    _work(resolved.stage_name, _edition(resolved.stage), resolved.identities[0]), len(spelled)
                )
                if resolved
                else -1
                for resolved in entry.wired.resolved
            ]
            points = plan.at[entry.first : entry.last]
            columns = [np.array(own, np.int32)[entry.own[points]]]
            for source in entry.sources:
                firsts = plan.by_entry[source.entry].places[source.at[points]]
                columns.append(np.where(firsts >= 0, self.classes[firsts], -1))
            rows, inverse = _distinct(columns)
            works = list(spelled)
            for row in rows:
                fed = zip(entry.sources, row[1:], strict=True)
                inputs = {source.input: self.kinds[each] for source, each in fed if each >= 0}
                self.entries.append(name)
                self.kinds.append(_kind(works[row[0]], inputs))
            self.classes[entry.first : entry.last] = len(self.kinds) - len(rows) + inverse

    def kind(self, number: int) -> str:
        """Return the kind of a step."""
        return self.kinds[int(self.classes[number])]

    def split(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Divide some steps by kind, keeping their order."""
        classes = self.classes[numbers]
        counts = np.bincount(classes)
        ordered, end = numbers[np.argsort(classes, kind="stable")], 0
        parts: dict[str, list[np.ndarray]] = {}
        for each in np.flatnonzero(counts).tolist():
            part = ordered[end : (end := end + counts[each])]
            parts.setdefault(self.kinds[each], []).append(part)
        return {kind: np.concatenate(each) for kind, each in parts.items()}

    def count(self, numbers: np.ndarray) -> dict[str, dict[str, int]]:
        """Count some steps: entry -> kind -> how many."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.plan.entries}
        counts = np.bincount(self.classes[numbers], minlength=len(self.kinds))
        for each in np.flatnonzero(counts).tolist():
            found[self.entries[each]][self.kinds[each]] = int(counts[each])
        return found

    def kinds_in(self, store: Store, addresses: Collection[Artifact]) -> dict[Artifact, str]:
        """Return the kinds of finished steps of other sweeps; those whose inputs cannot be traced are left out."""
        identities = self._read(store, addresses)
        found: dict[Artifact, str | None] = {}

        def kind(artifact: Artifact) -> str | None:
            if artifact not in found:
                identity = identities.get(artifact)
                found[artifact] = None
                if identity:
                    feeds = {name: of_input(artifact.stage, name, key) for name, key in identity["inputs"].items()}
                    inputs = {name: each for name, each in feeds.items() if each}
                    if len(inputs) == len(feeds):
                        edition = identity.get("version", identity.get("source"))
                        work = _work(artifact.stage, edition, json.dumps(identity["config"]))
                        found[artifact] = _kind(work, inputs)
            return found[artifact]

        def of_input(stage: str, name: str, key: str) -> str | None:
            number = self._number(key)
            if number is not None:
                return self.kind(number)
            makers = _makers(self.plan.spec.table, stage, name, key)
            return next((kind(each) for each in makers if each in identities), None)

        return {each: name for each in addresses if (name := kind(each)) is not None}

    def _read(self, store: Store, addresses: Collection[Artifact]) -> dict[Artifact, dict[str, Any]]:
        """Read the identities of some artifacts, and of all inputs of theirs that this plan does not know."""
        identities: dict[Artifact, dict[str, Any]] = {}
        wanted = set(addresses)
        listed = store.committed(self.plan.spec.table) if wanted else set()
        while wanted:
            read = store.manifests(wanted)
            for each, found in read.items():
                if isinstance(found, Manifest):
                    identities[each] = json.loads(found.identity)
            above = {
                maker
                for each in wanted & identities.keys()
                for name, key in identities[each]["inputs"].items()
                if self._number(key) is None
                for maker in _makers(self.plan.spec.table, each.stage, name, key)
            }
            wanted = (above & listed) - identities.keys()
        return identities

    def _number(self, key: str) -> int | None:
        """Return the step, or the first of a group, that a key in an identity names; None if the plan has neither."""
        number = self.plan.number(Artifact("", key))
        return self.plan.gathered(key) if number is None else number


def _distinct(columns: Sequence[np.ndarray]) -> tuple[list[list[int]], np.ndarray]:
    """Return the distinct rows of a table of numbers from -1 on, and for each row which of them it is."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        # One number for what was seen of a row so far; numbers are sorted much faster than rows.
        _, codes = np.unique(codes * (int(column.max()) + 2) + column + 1, return_inverse=True)
    _, firsts = np.unique(codes, return_index=True)
    return np.stack([column[firsts] for column in columns], axis=1).tolist(), codes


def _edition(stage: Stage) -> int | str | None:
    return stage.origin.source if stage.origin and stage.version is None else stage.version


def _work(stage: str, edition: int | str | None, config: str) -> _Work:
    """Return what a step is by itself, without its inputs."""
    return stage, edition, canonical_json(_without_draws(json.loads(config)))


def _without_draws(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_draws(item) for name, item in value.items() if name not in _DRAWS}
    return [_without_draws(item) for item in value] if isinstance(value, list) else value


def _kind(work: _Work, inputs: Mapping[str, str]) -> str:
    return digest_of(canonical_json([*work, dict(inputs)]), 16)


def _makers(table: Mapping[str, Stage], stage: str, name: str, key: str) -> list[Artifact]:
    """Return the artifacts that a key may mean which a step of a stage reads as an input."""
    inputs = table[stage].inputs if stage in table else {}
    makers = [each for each, made in table.items() if name in inputs and made.output == inputs[name].kind]
    return [Artifact(each, key) for each in makers]
