"""The claims of a sweep: what it declared that its results would show, and whether they do.

- A claim is one or several contrasts (`analysis.effect`), at each value of the axes that are never averaged over (`by`)
  and of those that it names (`each`): each of these is a *finding*, and all findings of a sweep are one family.
- What is tested is the widest statement that can be made: for new prompts where the sweep has values of single prompts,
  else for these prompts. Each finding says which.
- p: one-sided t test of "the effect is not as claimed". Of several contrasts (an order of three values or more) the
  largest counts (intersection-union test, Berger 1982), and that weakest contrast is the one that is shown.
- Equivalence: two one-sided tests (Schuirmann 1987), both of which must reject, at the level of the intervals: it holds
  where the whole interval lies between the bounds.
- Holm p: adjusted over all findings (Holm 1979). Verdict: *holds* where it is below (1 - confidence) / 2, *does not
  hold* where that of the opposite is, else *undecided*. So the chance that any finding of a sweep is wrongly said to
  hold is at most (1 - confidence) / 2, and that any is wrongly said not to hold as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

from orchestrator.analysis.contrast import format_difference, weights_of
from orchestrator.analysis.effect import Effect, Sample
from orchestrator.statistics.crossed import Interval
from orchestrator.statistics.estimates import adjusted
from orchestrator.statistics.power import Aim
from orchestrator.sweep.analysis import Analysis, Claim, Contrast, Direction
from orchestrator.types import Scalar


@dataclass(frozen=True)
class Finding:
    """What the results say about a claim, at some values of the axes that are not averaged over."""

    claim: str
    at: Mapping[str, Scalar]
    metric: str
    statement: str
    """The claim in words."""
    verdict: str
    """holds, does not hold, undecided, or not testable."""
    effect: str
    """The weakest contrast, to which the numbers belong."""
    found: Effect | None = None
    """Its numbers; None where it is not testable."""
    p: float | None = None
    p_opposite: float | None = None
    """Of "the effect is as claimed, or at its edge"; None where no result could refute it."""
    holm_p: float | None = None
    holm_p_opposite: float | None = None
    aim: Aim | None = None
    """What a new sweep would have to show; None where its power is unknown."""
    reason: str | None = None
    """Why it is not testable."""

    @property
    def power(self) -> float | None:
        """The chance that a sweep of the same size, run anew, would show the claim, at this level by itself."""
        return self.aim.power if self.aim else None

    @property
    def seeds_needed(self) -> int | None:
        """With how many seeds that chance is `GOOD_POWER`; None where no number of seeds is enough."""
        return self.aim.seeds_needed if self.aim else None


def find(sample: Sample, analysis: Analysis, directions: Mapping[str, Direction]) -> list[Finding]:
    """Return what the results say about all claims of a sweep, in the order of the file.

    Args:
        sample: the results.
        analysis: what the sweep declares.
        directions: metric -> which of its values are better.

    Raises:
        StoreError: tables of single prompts cannot be read.
    """
    level = (1 - sample.confidence) / 2
    findings = [
        _finding(sample, name, claim, at, claim.metric or analysis.primary.metric, directions)
        for name, claim in analysis.claims.items()
        for at in _points(sample, claim, analysis.primary.by)
    ]
    for_it, against_it = adjusted([each.p for each in findings]), adjusted([each.p_opposite for each in findings])
    return [
        replace(each, verdict=_verdict(p, against, level), holm_p=p, holm_p_opposite=against)
        if each.p is not None
        else each
        for each, p, against in zip(findings, for_it, against_it, strict=True)
    ]


def verdict_of(findings: Sequence[Finding]) -> str:
    """Return the verdict on a claim from its findings; one that is not testable keeps it from holding."""
    verdicts = {each.verdict for each in findings}
    if "does not hold" in verdicts:
        return "does not hold"
    return verdicts.pop() if len(verdicts) == 1 else "undecided"


def _points(sample: Sample, claim: Claim, by: Sequence[str]) -> Iterator[dict[str, Scalar]]:
    """Yield the values of the axes at which something is claimed."""
    contrasted = {layer.axis for layer in claim.layers}
    axes = [axis for axis in dict.fromkeys((*by, *claim.each)) if axis not in contrasted and axis in sample.grid.axes]
    within = {axis: _listed(labels) for axis, labels in claim.within.items()}
    for labels in product(*(sample.grid.chosen(axis, within) for axis in axes)):
        yield dict(zip(axes, labels, strict=True))


def _finding(
    sample: Sample, name: str, claim: Claim, at: Mapping[str, Scalar], metric: str, directions: Mapping[str, Direction]
) -> Finding:
    """Test a claim at one point: the weakest of its contrasts."""
    statement = format_claim(claim, metric, directions.get(metric))
    bare = Finding(name, at, metric, statement, "not testable", "")
    if claim.slope is None and claim.equivalent is None and claim.expect is None and metric not in directions:
        return replace(bare, reason=f"it is not known which values of {metric} are better")
    if metric not in sample.grid.metrics:
        return replace(bare, reason=f"no cell has a number of {metric}")
    counted = {axis: _listed(labels) for axis, labels in claim.within.items()} | {
        axis: [label] for axis, label in at.items()
    }
    if absent := _absent(sample, claim, counted):
        return replace(bare, reason=f"there are no cells of {absent}")
    pairs: list[tuple[Scalar, Scalar] | None] = list(pairwise(claim.values)) if claim.compare else [None]
    tested = []
    for pair in pairs:
        found = sample.effect(metric, weights_of(claim, pair, sample.grid, counted), bootstrap=True)
        effect = format_contrast(claim, pair)
        if found.interval is None or found.interval.p is None:
            return replace(bare, found=found, effect=effect, reason="; ".join(found.notes))
        tested.append((_tests(claim, found.interval, directions.get(metric)), found, effect))
    (p, _), found, effect = max(tested, key=lambda each: each[0][0])
    against = [opposite for (_, opposite), _, _ in tested if opposite is not None]
    # One contrast that is wrong is enough to refute: Bonferroni over them.
    refuted = min(1.0, len(tested) * min(against)) if against else None
    aim = _aim(found, claim, directions.get(metric), (1 - sample.confidence) / 2)
    return replace(bare, verdict="undecided", effect=effect, found=found, p=p, p_opposite=refuted, aim=aim)


def _absent(sample: Sample, claim: Claim, counted: Mapping[str, Sequence[Scalar]]) -> str:
    """Name the values that a claim speaks of and that have no cell, those of the first axis that lacks some."""
    named = [(layer.axis, layer.values) for layer in claim.layers] + list(counted.items())
    for axis, values in named:
        if missing := [str(value) for value in values if value not in sample.grid.labels(axis)]:
            return f"{axis} = {', '.join(missing)}"
        if axis == claim.slope and len(sample.grid.labels(axis)) < 2:
            return f"two values of {axis}"
    return ""


def _tests(claim: Claim, interval: Interval, better: Direction | None) -> tuple[float, float | None]:
    """Return the one-sided p values against and for a claim."""

    def above(threshold: float) -> float:
        p = interval.p_above(threshold)
        assert p is not None, "there is a spread"
        return p

    def below(threshold: float) -> float:
        p = interval.p_below(threshold)
        assert p is not None, "there is a spread"
        return p

    if claim.equivalent is not None:
        inside = max(above(-claim.equivalent), below(claim.equivalent))
        return inside, min(1.0, 2 * min(above(claim.equivalent), below(-claim.equivalent)))
    if claim.slope is not None and claim.expect is None:
        # That there is a slope: of either sign, at half the level each. No result refutes it.
        return min(1.0, 2 * min(above(0), below(0))), None
    margin = claim.no_worse or 0.0
    if claim.expect == "positive" or (claim.expect is None and better == "higher"):
        return above(-margin), below(-margin)
    return below(margin), above(margin)


def _aim(found: Effect, claim: Claim, better: Direction | None, level: float) -> Aim | None:
    """Say what a new sweep would have to show, where the seeds alone, or with prompts, are random."""
    pilot = found.pilot
    if pilot is None:
        return None
    if claim.equivalent is not None:
        return Aim(pilot, -claim.equivalent, claim.equivalent, level)
    if claim.slope is not None and claim.expect is None:
        return Aim(replace(pilot, mean=abs(pilot.mean)), alpha=level / 2)
    positive = claim.expect == "positive" or (claim.expect is None and better == "higher")
    pilot = pilot if positive else replace(pilot, mean=-pilot.mean)
    return Aim(pilot, -(claim.no_worse or 0.0), alpha=level)


def _verdict(p: float | None, against: float | None, level: float) -> str:
    if p is not None and p < level:
        return "holds"
    return "does not hold" if against is not None and against < level else "undecided"


def _listed(value: object) -> Sequence[Scalar]:
    return value if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]


# --- in words


def format_claim(claim: Claim, metric: str, better: Direction | None) -> str:
    """Say what is claimed, without the values of `by` and `each`."""
    where = f" at {format_within(claim.within)}" if claim.within else ""
    if claim.compare and claim.of is None and claim.expect is None:
        first, *others = claim.values
        if claim.equivalent is not None:
            said = f"equals {others[0]} within ±{claim.equivalent:g}"
        elif claim.no_worse is not None:
            said = f"is worse than {others[0]} by less than {claim.no_worse:g}, if at all"
        else:
            said = f"has {better} {metric} than " + ", and that than ".join(map(str, others))
        return f"{claim.axis} {first} {said}" + (f" in {metric}" if "has" not in said.split() else "") + where
    if claim.compare and claim.of is None and claim.expect:
        falls = "falls" if claim.expect == "positive" else "rises"
        return f"{metric} {falls} from {claim.axis} " + " to ".join(map(str, claim.values)) + where
    what = f"{format_contrast(claim, None)} of {metric}{where}"
    if claim.equivalent is not None:
        return f"{what} lies within ±{claim.equivalent:g}"
    if claim.no_worse is not None:
        return f"{what} is {'above -' if better == 'higher' else 'below '}{claim.no_worse:g}"
    if claim.slope is not None and claim.expect is None:
        return f"{what} is not zero"
    return f"{what} is {claim.expect or ('positive' if better == 'higher' else 'negative')}"


def format_within(within: Mapping[str, object]) -> str:
    """Write the values of axes over which is averaged: "beta = 0.5, 1"."""
    return "; ".join(f"{axis} = {', '.join(map(str, _listed(labels)))}" for axis, labels in within.items())


def format_contrast(contrast: Contrast, pair: tuple[Scalar, Scalar] | None) -> str:
    """Name a contrast: "clf_mlp - bt_mlp", "slope of (clf_mlp - bt_mlp) per doubling of beta"."""
    inner = f"({format_contrast(contrast.of, None)})" if contrast.of else ""
    if contrast.slope is not None:
        per = f"per doubling of {contrast.slope}" if contrast.log else f"per unit of {contrast.slope}"
        return f"slope of {inner} {per}" if inner else f"slope {per}"
    values = pair or tuple(contrast.values)
    if inner:
        return " - ".join(f"{inner} at {contrast.axis} {value}" for value in values)
    return format_difference(contrast.axis, *values)
