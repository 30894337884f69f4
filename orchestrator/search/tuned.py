"""Looks up `{tuned: …}`: the best values of another sweep's studies, which take the place of what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from orchestrator.plan.tuned import TunedPoint, tuned_points
from orchestrator.search.trial import Study
from orchestrator.store import StoreError
from orchestrator.sweep.problems import DocPath, Problem, SweepError, told
from orchestrator.sweep.search import Search
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import nearest
from orchestrator.types import Scalar


class Opened(Protocol):
    """Another sweep that was opened (`orchestrator.session.Session`)."""

    @property
    def spec(self) -> SweepSpec:
        """Its sweep file."""

    def command(self, verb: str, *words: str) -> str:
        """Return a `sweep` command on it."""

    def study_views(self) -> list[Study]:
        """Return its studies as they are now."""


def look_up_tuned(spec: SweepSpec, open_other: Callable[[Path], Opened]) -> SweepSpec:
    """Return a sweep that knows the tuned results that its configs name, with the mistakes that were met.

    Args:
        spec: the sweep.
        open_other: opens another sweep file; raises SweepError.
    """
    found: dict[tuple[str, frozenset[tuple[str, Scalar]]], Mapping[str, Any]] = {}
    problems: dict[tuple[DocPath, str], Problem] = {}
    others: dict[str, _Other] = {}
    for point in tuned_points(spec):
        file = point.tuned.file
        try:
            if file not in others:
                others[file] = _Other(file, spec.document.path.parent / file, open_other)
            key = point.tuned.source, frozenset(point.at.items())
            values = others[file].values(point)
            # Where all cells are excluded a stand-in is enough; another entry may need the values.
            if point.used or key not in found:
                found[key] = values
        except _AmissError as error:
            place, message = (*point.path, *error.where), str(error)
            problems.setdefault((place, message), spec.problem(place, message))
    return spec.with_tuned(found).with_problems(told(problems.values()))


class _AmissError(Exception):
    """A tuned result that there is not: where in `{tuned: …}` the mistake is, and what it is."""

    def __init__(self, message: str, *where: str) -> None:
        super().__init__(message)
        self.where = where or ("tuned",)


class _Other:
    """Another sweep, as far as it can be opened; its studies are read once."""

    def __init__(self, file: str, path: Path, open_other: Callable[[Path], Opened]) -> None:
        self._file = file
        self._opened: Opened | None = None
        self._unfit = ""
        self._studies: list[Study] | None = None
        try:
            self._opened = open_other(path)
        except SweepError as error:
            first, *more = error.problems
            self._unfit = f"{file} cannot be opened: {first}" + (f"; and {len(more)} more" if more else "")
        except StoreError as error:
            self._unfit = f"the store of {file} cannot be read: {error}"

    def values(self, point: TunedPoint) -> Mapping[str, Any]:
        """Return the best values of the study at a point; a stand-in where no cell uses them.

        Raises:
            _AmissError: there is no such study, or it has no best values.
        """
        search = self._search(point)
        self._check(search, point)
        if not point.used:
            return search.meant(next(search.samples(point.at)))
        study = self._study(point)
        if len(search.objective.metrics) > 1:
            metrics = ", ".join(search.objective.metrics)
            raise _AmissError(
                f"study {study.name} has several objectives ({metrics}), by which no trial is the best; choose one of "
                f"`{self._sweep.command('best')}`, and write its values here"
            )
        if not study.finished:
            ended = sum(trial.state != "running" for trial in study.trials)
            message = (
                f"study {study.name} has {ended} of {study.budget} trials; finish it: {self._sweep.command('run')}"
            )
            raise _AmissError(message)
        if study.best is None:
            bound = " and keeps to the constraints" if search.constraints else ""
            raise _AmissError(
                f"study {study.name} has no best trial: none of its {len(study.trials)} is complete{bound}; "
                f"`{self._sweep.command('status')}` says more"
            )
        return search.meant(study.best.values)

    def _search(self, point: TunedPoint) -> Search:
        spec, name = self._sweep.spec, point.tuned.search
        if not spec.search:
            raise _AmissError(f"{self._file} has no search, so nothing in it is tuned")
        if name not in spec.search:
            raise _AmissError(f"{self._file} has no search {name!r}; {nearest(name, spec.search)}")
        return spec.search[name]

    def _check(self, search: Search, point: TunedPoint) -> None:
        """Make sure that the coordinates are those of a study, and the field one of its space."""
        spec, tuned = self._sweep.spec, point.tuned
        field = (tuned.field or "").partition(".")[0]
        if field and field not in search.space:
            raise _AmissError(f"the space of {tuned.source} has no {field!r}; {nearest(field, search.space)}")
        axes = {axis: spec.labels(axis) for axis in spec.study_axes}
        for axis, label in point.at.items():
            if axis not in axes:
                raise _AmissError(f"the studies of {tuned.source} have no axis {axis!r}; {nearest(axis, axes)}", "for")
            if label not in axes[axis]:
                # Of 1 and '1' one is a number, the other a name.
                twin = next((each for each in axes[axis] if str(each) == str(label)), None)
                hint = nearest(label, axes[axis]) if twin is None else f"it has {twin!r}"
                message = f"{label!r} is no value of {axis!r} in {self._file}; {hint}"
                raise _AmissError(message, "for", axis)
        if missing := [axis for axis, labels in axes.items() if axis not in point.at and len(labels) > 1]:
            written = ", ".join(f"{axis}: ${axis}" for axis in missing)
            message = f"{tuned.source} has a study for each {' and '.join(missing)}; say which: for: {{{written}}}"
            raise _AmissError(message)

    def _study(self, point: TunedPoint) -> Study:
        if self._studies is None:
            try:
                self._studies = self._sweep.study_views()
            except StoreError as error:
                raise _AmissError(f"the store of {self._file} cannot be read: {error}") from error
        for study in self._studies:
            if all(study.coords[axis] == label for axis, label in point.at.items()):
                return study
        where = ", ".join(f"{axis}={label}" for axis, label in point.at.items())
        raise _AmissError(f"{point.tuned.source} has no study at {where}, which {self._file} excludes")

    @property
    def _sweep(self) -> Opened:
        if self._opened is None:
            raise _AmissError(self._unfit)
        return self._opened
