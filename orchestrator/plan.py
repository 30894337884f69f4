"""All cells and steps of a sweep, before anything runs. Pure: no disk, no cluster, no heavy import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

from orchestrator.canonical import canonical_json, digest, digest_of
from orchestrator.document import Problem, SweepError, nearest
from orchestrator.references import substitute
from orchestrator.spec import SweepSpec, matches
from orchestrator.types import Artifact, Cell, Scalar, Step
from orchestrator.wiring import merged_config, order, own_axes, sources, targets
from workers.stages import STAGES, Stage


@dataclass(frozen=True)
class Plan:
    """Cells and the steps that they share; every key is known."""

    spec: SweepSpec
    cells: tuple[Cell, ...]
    steps: Mapping[Artifact, Step]
    """In an order in which every step comes after those it reads."""
    entries: tuple[str, ...]
    """Entry names in that order."""
    targets: tuple[str, ...]
    """The entries that feed no other: a cell is finished when these are committed."""
    users: Mapping[Artifact, int] = field(default_factory=dict)
    """How many cells of the whole sweep use a step."""

    def of_entry(self) -> dict[str, list[Step]]:
        """The steps of each entry."""
        grouped: dict[str, list[Step]] = {name: [] for name in self.entries}
        for step in self.steps.values():
            grouped[step.entry].append(step)
        return grouped

    def metrics_of(self, step: Step) -> tuple[str, ...]:
        """The metrics that a step must return."""
        return STAGES[step.stage].config.model_validate(step.config).metrics()

    def targets_of(self, cell: Cell) -> tuple[Artifact, ...]:
        """The artifacts whose presence finishes a cell."""
        return tuple(artifact for name in self.targets for artifact in cell.steps.get(name, ()))

    def own_steps(self, cell: Cell) -> tuple[Artifact, ...]:
        """The steps that no other cell of the sweep uses."""
        return tuple(artifact for group in cell.steps.values() for artifact in group if self.users[artifact] == 1)

    def key_of(self, cell: Cell) -> str:
        """The content address of a cell: the key of its target, or a digest of several."""
        keys = [artifact.key for artifact in self.targets_of(cell)]
        return keys[0] if len(keys) == 1 else digest(keys)

    def select(self, keep: Callable[[Cell], bool]) -> Plan:
        """The plan of some of the cells, with the steps that they need."""
        cells = tuple(cell for cell in self.cells if keep(cell))
        groups = {id(group): group for cell in cells for group in cell.steps.values()}
        needed = {artifact for group in groups.values() for artifact in group}
        steps = {address: step for address, step in self.steps.items() if address in needed}
        return Plan(self.spec, cells, steps, self.entries, self.targets, self.users)


def cell_id(coords: Mapping[str, Scalar]) -> str:
    """Twelve hex digits that name a point, whatever the sweep is called."""
    # Canonical JSON, joined from parts that thousands of cells share.
    return digest_of("{" + ",".join(_spelled_pair(axis, coords[axis]) for axis in sorted(coords)) + "}", 12)


# `typed`, because True and 1 are equal but not spelled alike.
@lru_cache(maxsize=None, typed=True)
def _spelled_pair(axis: str, label: Scalar) -> str:
    return f"{canonical_json(axis)}:{canonical_json(label)}"


def build_plan(spec: SweepSpec) -> Plan:
    """Expand a checked sweep (`check_wiring`) into cells and shared steps.

    A step is built once for each combination of the axes that it depends on; steps that ask the same question, in
    whatever entry or at whatever coordinates, have the same key and are one step.

    Raises:
        SweepError: every cell is excluded, or a config cannot be spelled or fits no stage.
    """
    names = order(spec)
    axes = tuple(spec.axes)
    builder = _Builder(spec, names)
    position = {axis: index for index, axis in enumerate(axes)}
    projections = [(name, [position[axis] for axis in sorted(builder.axes[name], key=axes.index)]) for name in names]
    cells: list[Cell] = []
    # Cells share tuples of artifacts: counting those, not their members, keeps 1,700 shards per cell affordable.
    groups: dict[int, tuple[Artifact, ...]] = {}
    uses: Counter[int] = Counter()
    for labels in product(*(spec.labels(axis) for axis in axes)):
        coords = dict(zip(axes, labels, strict=True))
        if any(matches(pattern, coords) for pattern in spec.exclude):
            continue
        steps: dict[str, tuple[Artifact, ...]] = {}
        for name, positions in projections:
            made = builder.artifacts(name, tuple(labels[index] for index in positions), coords)
            if made:
                steps[name] = made
        for each, made in {id(made): made for made in steps.values()}.items():
            groups[each] = made
            uses[each] += 1
        cells.append(Cell(cell_id(coords), coords, steps))
    if not cells:
        raise SweepError([spec.problem(("exclude",), "every cell is excluded, nothing is left to run")])
    users: Counter[Artifact] = Counter()
    for each, made in groups.items():
        for artifact in made:
            users[artifact] += uses[each]
    return Plan(spec, tuple(cells), builder.steps, tuple(names), targets(spec), users)


class _Builder:
    """Builds each shared step once."""

    def __init__(self, spec: SweepSpec, names: Iterable[str]) -> None:
        self.spec = spec
        self.steps: dict[Artifact, Step] = {}
        self.axes: dict[str, frozenset[str]] = {}
        self._own: dict[str, frozenset[str]] = {}
        self._made: dict[str, dict[tuple[Scalar, ...], tuple[Artifact, ...]]] = {}
        self._configs: dict[tuple[str, tuple[Scalar, ...]], tuple[str, list[tuple[dict[str, Any], str]]]] = {}
        self._group_keys: dict[int, str] = {}
        for name in names:
            entry = spec.stages[name]
            self._own[name] = own_axes(spec, name)
            self.axes[name] = self._own[name].union(*(self.axes[source] for source in sources(entry)))
            self._made[name] = {}

    def artifacts(
        self, name: str, projection: tuple[Scalar, ...], coords: Mapping[str, Scalar]
    ) -> tuple[Artifact, ...]:
        """The artifacts of an entry at coordinates; empty where it does not exist."""
        made = self._made[name].get(projection)
        if made is None:
            made = self._made[name][projection] = self._make(name, coords)
        return made

    def _make(self, name: str, coords: Mapping[str, Scalar]) -> tuple[Artifact, ...]:
        entry = self.spec.stages[name]
        if substitute(self.spec, entry.when, coords) is False:
            return self._at(entry.otherwise, coords) if entry.otherwise else ()
        kind, configs = self._configs_at(name, coords)
        stage = STAGES[kind]
        sourced = {each: self._at(source, coords) for each, source in entry.inputs.items()}
        for each, found in sourced.items():
            if not found and not stage.inputs[each].optional:
                message = f"the input is missing at {dict(coords)}: entry {entry.inputs[each]!r} does not exist there"
                raise SweepError([self.spec.problem(("stages", name, "inputs", each), message)])
        depends = {axis: coords[axis] for axis in self.spec.axes if axis in self.axes[name]}
        shards = self._shards(name, stage, sourced, coords)
        artifacts = []
        for shard in range(shards):
            config, config_json = configs[shard if len(configs) > 1 else 0]
            inputs = {
                each: found if stage.inputs[each].many or len(found) == 1 else found[shard : shard + 1]
                for each, found in sorted(sourced.items())
                if found
            }
            keys = ",".join(f'"{each}":"{self._group_key(found)}"' for each, found in inputs.items())
            # Canonical JSON, joined from parts that many steps share.
            identity = f'{{"config":{config_json},"inputs":{{{keys}}},"stage":"{kind}","version":{stage.version}}}'
            address = Artifact(kind, digest_of(identity))
            if address not in self.steps:
                self.steps[address] = Step(address, name, config, identity, inputs, depends)
            artifacts.append(address)
        return tuple(artifacts)

    def _group_key(self, group: tuple[Artifact, ...]) -> str:
        """The key of one artifact, or a digest of the keys of several, in order."""
        if len(group) == 1:
            return group[0].key
        found = self._group_keys.get(id(group))
        if found is None:
            found = digest([artifact.key for artifact in group])
            self._group_keys[id(group)] = found
        return found

    def _at(self, name: str, coords: Mapping[str, Scalar]) -> tuple[Artifact, ...]:
        projection = tuple(coords[axis] for axis in self.spec.axes if axis in self.axes[name])
        return self.artifacts(name, projection, coords)

    def _configs_at(self, name: str, coords: Mapping[str, Scalar]) -> tuple[str, list[tuple[dict[str, Any], str]]]:
        """The kind of an entry at coordinates, and for each shard what the stage is told and its canonical JSON."""
        at = (name, tuple(coords[axis] for axis in self.spec.axes if axis in self._own[name]))
        found = self._configs.get(at)
        if found is None:
            entry = self.spec.stages[name]
            kind = str(substitute(self.spec, entry.stage, coords) or name)
            value = merged_config(self.spec, entry, coords)
            shards = substitute(self.spec, entry.shards, coords)
            configs = [
                STAGES[kind].config.model_validate(
                    value if shards is None else value | {"shard": shard, "shards": shards}
                )
                for shard in range(shards or 1)
            ]
            made = [(config.model_dump(mode="json"), canonical_json(config.identity())) for config in configs]
            found = self._configs[at] = (kind, made)
        return found

    def _shards(
        self, name: str, stage: Stage, sourced: Mapping[str, tuple[Artifact, ...]], coords: Mapping[str, Scalar]
    ) -> int:
        written = substitute(self.spec, self.spec.stages[name].shards, coords)
        inherited = {len(found) for each, found in sourced.items() if not stage.inputs[each].many and len(found) > 1}
        counts = inherited | ({int(written)} if written is not None else set())
        if len(counts) > 1:
            message = f"the inputs are cut into different numbers of shards: {sorted(counts)}"
            raise SweepError([self.spec.problem(("stages", name), message)])
        return counts.pop() if counts else 1


def selection(spec: SweepSpec, only: Iterable[str], exclude: Iterable[str]) -> Callable[[Cell], bool]:
    """A predicate from `--only axis=v1,v2` and `--exclude axis=v1,v2`; several `--only` must all hold.

    Raises:
        SweepError: no such axis or value.
    """
    wanted = [_chosen(spec, "--only", text) for text in only]
    unwanted = [_chosen(spec, "--exclude", text) for text in exclude]

    def keep(cell: Cell) -> bool:
        return all(cell.coords[axis] in labels for axis, labels in wanted) and not any(
            cell.coords[axis] in labels for axis, labels in unwanted
        )

    return keep


def _chosen(spec: SweepSpec, option: str, text: str) -> tuple[str, set[Scalar]]:
    axis, equals, values = text.partition("=")
    place = f"{option} {text}"
    if not equals or axis not in spec.axes:
        message = f"there is no axis {axis!r}; {nearest(axis, spec.axes)}" if equals else "write axis=value,value"
        raise SweepError([Problem(place, "", message)])
    labels = {_spelled(label): label for label in spec.labels(axis)}
    problems = [
        Problem(place, "", f"{value!r} is no value of {axis!r}; {nearest(value, labels)}")
        for value in values.split(",")
        if _spelled(value) not in labels
    ]
    if problems:
        raise SweepError(problems)
    return axis, {labels[_spelled(value)] for value in values.split(",")}


def _spelled(label: Scalar) -> str:
    """One spelling for 1, 1.0 and "1", as in keys."""
    if isinstance(label, bool):
        return str(label).lower()
    try:
        return canonical_json(float(label))
    except (ValueError, TypeError):
        return str(label)


def find_cell(plan: Plan, text: str) -> Cell:
    """The cell named by (the beginning of) its id, or by `axis=value,axis=value` as far as that is unambiguous.

    Raises:
        SweepError: none or several match.
    """
    if "=" in text:
        coords = dict(part.partition("=")[::2] for part in text.split(","))
        unknown = [axis for axis in coords if axis not in plan.spec.axes]
        if unknown:
            hint = nearest(unknown[0], plan.spec.axes)
            raise SweepError([Problem(f"CELL {text}", "", f"there is no axis {unknown[0]!r}; {hint}")])
        found = [
            cell
            for cell in plan.cells
            if all(_spelled(cell.coords[axis]) == _spelled(value) for axis, value in coords.items())
        ]
    else:
        found = [cell for cell in plan.cells if cell.id.startswith(text)]
    if len(found) == 1:
        return found[0]
    few = "; ".join(f"{cell.id} ({spell_coords(cell.coords)})" for cell in found[:5])
    message = f"names {len(found)} cells, e.g. {few}; say more" if found else "names no cell of this sweep"
    raise SweepError([Problem(f"CELL {text}", "", f"{message}; `sweep results` lists cell ids")])


def spell_coords(coords: Mapping[str, Scalar]) -> str:
    """{"beta": 1, "seed": 0} -> "beta=1,seed=0"."""
    return ",".join(f"{axis}={label}" for axis, label in coords.items())
