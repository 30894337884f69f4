"""Checks of `analysis`: what it names is there, and directions do not contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.sweep.analysis import Claim, Contrast, Direction, directions
from orchestrator.sweep.load import pattern_problems
from orchestrator.sweep.problems import DocPath, Problem
from orchestrator.sweep.search import TRIAL
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import nearest
from workers.metric import Metric


def analysis_metrics(spec: SweepSpec) -> list[tuple[DocPath, str]]:
    """Return where the analysis names metrics, and which."""
    if spec.analysis is None:
        return []
    named: list[tuple[DocPath, str]] = [(("analysis", "primary", "metric"), spec.analysis.primary.metric)]
    for place, each in enumerate(spec.analysis.secondary):
        named.append((("analysis", "secondary", place), each.metric))
    for name, claim in spec.analysis.claims.items():
        if claim.metric is not None:
            named.append((("analysis", "claims", name, "metric"), claim.metric))
    return named


def analysis_problems(spec: SweepSpec, metrics: Mapping[str, Metric]) -> list[Problem]:
    """Find the mistakes in the analysis of a sweep, but for names of metrics that there are not.

    Args:
        spec: the sweep.
        metrics: name -> declaration, of those that it reports.
    """
    if spec.analysis is None:
        return []
    found = [spec.problem(where, message) for where, message in _mistakes(spec, metrics)]
    for name, claim in spec.analysis.claims.items():
        within = {axis: labels for axis, labels in claim.within.items() if not _overridden(spec, axis)}
        found += pattern_problems(spec, ("analysis", "claims", name, "within"), within)
    return found


def _mistakes(spec: SweepSpec, metrics: Mapping[str, Metric]) -> Iterator[tuple[DocPath, str]]:
    analysis = spec.analysis
    assert analysis is not None, "there is something to check"
    declared: dict[str, Direction | None] = {name: each.better for name, each in metrics.items()}
    yield from _contradictions(spec, declared)
    better = directions(analysis, declared)
    primary = analysis.primary
    if primary.metric in metrics and primary.metric not in better:
        yield ("analysis", "primary"), f"say which values of {primary.metric!r} are better: `better: higher`, or lower"
    for place, axis in enumerate(primary.by):
        yield from _axis_mistakes(spec, ("analysis", "primary", "by", place), axis)
    yield from _random_mistakes(spec)
    names = [primary.metric, *(each.metric for each in analysis.secondary)]
    for place, name in enumerate(names[1:], 1):
        if name in names[:place]:
            yield ("analysis", "secondary", place - 1), f"{name!r} is there twice; keep one"
    for name, claim in analysis.claims.items():
        where = ("analysis", "claims", name)
        yield from _claim_mistakes(spec, where, claim)
        metric = claim.metric or primary.metric
        compares = claim.compare is not None and claim.expect is None and claim.equivalent is None
        # Of the primary one it is said once.
        if (
            metric != primary.metric
            and metric in metrics
            and metric not in better
            and (compares or claim.no_worse is not None)
        ):
            yield (
                where,
                f"it is not known which values of {metric!r} are better: write `expect: positive`, or negative, or "
                f"`secondary: [{{metric: {metric}, better: higher}}]`",
            )


def _contradictions(spec: SweepSpec, declared: Mapping[str, Direction | None]) -> Iterator[tuple[DocPath, str]]:
    analysis = spec.analysis
    assert analysis is not None, "there is something to check"
    for place, each in enumerate(analysis.outcomes):
        where: DocPath = ("analysis", "primary", "better") if not place else ("analysis", "secondary", place - 1)
        stage = declared.get(each.metric)
        if stage and each.better and stage != each.better:
            yield where, f"is {each.better} for {each.metric!r}, but its stage says that {stage} is better"


def _random_mistakes(spec: SweepSpec) -> Iterator[tuple[DocPath, str]]:
    analysis = spec.analysis
    assert analysis is not None, "there is something to check"
    tables = 0
    for name, places in analysis.random.items():
        where: DocPath = ("analysis", "random", name)
        if all("/" in place for place in places) and places:
            tables += 1
            if tables > 1:
                yield where, "prompts are of one kind; name all of their tables in one list"
            for place in places:
                entry, _, file = place.partition("/")
                if entry not in spec.stages:
                    yield where, f"there is no entry {entry!r}; {nearest(entry, spec.stages)}"
                elif not file:
                    yield where, "name the table that the stage writes: ENTRY/FILE"
        elif len(places) != 1 or "/" in places[0]:
            yield where, "is neither an axis nor ENTRY/FILE, the table of single prompts that a stage wrote"
        elif spec.understood("axes", places[0]) and places[0] not in spec.axes:
            yield where, f"there is no axis {places[0]!r}; {nearest(places[0], spec.axes)}"


def _claim_mistakes(spec: SweepSpec, where: DocPath, claim: Claim) -> Iterator[tuple[DocPath, str]]:
    used: set[str] = set()
    path: DocPath = where
    for layer in claim.layers:
        of_layer: DocPath = (*path, "slope") if layer.slope is not None else (*path, "compare")
        yield from _axis_mistakes(spec, of_layer, layer.axis)
        if layer.axis in used:
            yield of_layer, f"{layer.axis!r} is contrasted already; keep one"
        used.add(layer.axis)
        if layer.axis in spec.axes and layer.axis not in _random(spec):
            yield from _value_mistakes(spec, of_layer, layer)
        path = (*path, "of")
    for axis in claim.within:
        if axis in used and axis not in {layer.axis for layer in claim.layers if layer.slope is not None}:
            yield (*where, "within", axis), "this is what is compared; leave it out"
        elif axis in _random(spec):
            yield (*where, "within", axis), f"{axis!r} is random, and is never chosen from; leave it out"
    for place, axis in enumerate(claim.each):
        yield from _axis_mistakes(spec, (*where, "each", place), axis)
        if axis in used:
            yield (*where, "each", place), "this is what is compared; leave it out"


def _axis_mistakes(spec: SweepSpec, where: DocPath, axis: str) -> Iterator[tuple[DocPath, str]]:
    if axis in _random(spec):
        yield where, f"{axis!r} is random: its values are the sample, and are neither compared nor held fixed"
    elif axis == TRIAL and spec.searched:
        yield where, "trials of a search have nothing in common; of each study the best one counts"
    elif axis not in spec.axes and spec.understood("axes", axis):
        yield where, f"there is no axis {axis!r}; {nearest(axis, spec.axes)}"


def _value_mistakes(spec: SweepSpec, where: DocPath, layer: Contrast) -> Iterator[tuple[DocPath, str]]:
    labels = spec.labels(layer.axis)
    if _overridden(spec, layer.axis):
        return
    for value in layer.values:
        if value not in labels:
            yield where, f"{value!r} is no value of {layer.axis!r}; {nearest(value, labels)}"
    if layer.slope is not None:
        if any(isinstance(label, bool) or not isinstance(label, int | float) for label in labels):
            yield where, f"a slope needs numbers, which the values of {layer.axis!r} are not"
        elif len(labels) < 2:
            yield where, f"a slope needs two values of {layer.axis!r}, which has one"
        elif layer.log and any(float(label) <= 0 for label in labels):
            yield where, f"a slope per doubling needs positive values of {layer.axis!r}"


def _overridden(spec: SweepSpec, axis: str) -> bool:
    """Tell whether -s gave an axis other values: a claim about those that are gone is not testable, and no mistake."""
    return spec.document.places.get(("axes", axis), "").startswith("-s ")


def _random(spec: SweepSpec) -> set[str]:
    return set(spec.analysis.random_axes().values()) if spec.analysis else set()
