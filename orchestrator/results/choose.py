"""Studies by name or coordinates, as people write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.plan.select import format_coords, normalised
from orchestrator.search.trial import Study
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest
from orchestrator.types import Scalar


def choose_studies(studies: Sequence[Study], text: str, option: str = "--study") -> list[Study]:
    """Return the studies that a text names: `tuning/bt_mlp`, `bt_mlp`, `tuning` for all, or `axis=value,axis=value`.

    Args:
        studies: all studies of a sweep.
        text: the name.
        option: where it was written.

    Raises:
        SweepError: there is no such study, axis or value.
    """
    named = [study for study in studies if text in _names(study)]
    if named:
        return named
    if "=" in text:
        # Values may have commas in them, but no axis does.
        wanted: dict[str, str] = {}
        last = ""
        for part in text.split(","):
            axis, equals, value = part.partition("=")
            last = axis.strip() if equals else last
            wanted[last] = value if equals else f"{wanted.get(last, '')},{part}"
        return studies_at(studies, wanted, f"{option} {text}")
    hint = nearest(text, [study.name for study in studies])
    raise SweepError([Problem(f"{option} {text}", "", f"there is no study {text!r}; {hint}")])


def choose_study(studies: Sequence[Study], name: str | None, coords: Mapping[str, Scalar]) -> Study:
    """Return the one study with a name and coordinates.

    Args:
        studies: all studies of a sweep.
        name: as `choose_studies` reads it; None for any.
        coords: axis -> value.

    Raises:
        SweepError: there is no such study, axis or value, or several have these.
    """
    named = list(studies) if name is None else choose_studies(studies, name, "study")
    place = f"study {format_coords(coords)}".strip()
    found = studies_at(named, coords, place) if coords else named
    if len(found) > 1:
        axes = [axis for axis in found[0].coords if len({study.coords[axis] for study in found}) > 1]
        some = ", ".join(study.name for study in found[:4]) + (", …" if len(found) > 4 else "")
        message = f"names {len(found):,} studies ({some}); say which {' and '.join(axes)}"
        raise SweepError([Problem(place, "", message)])
    return found[0]


def studies_at(studies: Sequence[Study], wanted: Mapping[str, Scalar], place: str) -> list[Study]:
    """Return the studies with certain coordinates.

    Args:
        studies: all studies of a sweep.
        wanted: axis -> value; the spelling of numbers does not matter.
        place: where that was written.

    Raises:
        SweepError: there is no such axis or value, or no study with all of them.
    """
    problems: list[Problem] = []
    axes: dict[str, dict[str, Scalar]] = {}
    for study in studies:
        for axis, label in study.coords.items():
            axes.setdefault(axis, {})[normalised(label)] = label
    for axis, value in wanted.items():
        if axis not in axes:
            where = f"the studies have no axis {axis!r}; {nearest(axis, axes)}"
            problems.append(Problem(place, "", where if axes else f"there is one study, which has no axis {axis!r}"))
        elif normalised(value) not in axes[axis]:
            hint = nearest(value, axes[axis].values())
            problems.append(Problem(place, "", f"no study has {axis} {value!r}; {hint}"))
    if problems:
        raise SweepError(problems)
    found = [
        study
        for study in studies
        if all(normalised(study.coords[axis]) == normalised(value) for axis, value in wanted.items())
    ]
    if not found:
        raise SweepError([Problem(place, "", f"the sweep excludes the study at {format_coords(wanted)}")])
    return found


def _names(study: Study) -> Iterator[str]:
    yield study.name
    search, _, labels = study.name.partition("/")
    yield search
    if labels:
        yield labels
