"""Which claims of "Rethinking Reward Modeling" (ICLR 2025) hold in the results of a sweep, by statistics.

    python sweeps/claims.py outputs/sweeps/synthetic/results.parquet [--json] [--confidence 0.95]

Each claim is taken apart into hypotheses, and each hypothesis is one or more *effects* that must all be positive. An
effect is a difference between cells that agree in everything else, averaged within each seed over all other axes; the
seeds are the sample. Where the world depends on the seed, intervals speak of other worlds too; where it does not, only
of other annotators and fits in this world.

- Interval: Student's t over the seeds, n - 1 degrees of freedom, two-sided, not adjusted.
- p: one-sided t test of "the effect is not positive". With several effects the largest p counts (intersection-union
  test, Berger 1982), and that weakest effect is the one that is shown.
- Holm p: adjusted over all hypotheses of the report (Holm 1979), so that the chance that any is wrongly found to hold
  is at most (1 - confidence) / 2. The same is done in the opposite direction.
- Verdict: *holds* where the Holm p is below (1 - confidence) / 2, *does not hold* where that of the opposite is (some
  effect is negative), else *undecided*. A claim holds if all its hypotheses do, and does not if one of them does not.

The flip rates are not compared with E[sigmoid(-beta |gap| / scale)]: the table has the mean of |gap| and not its
distribution, and the expectation of a function that is not linear cannot be computed from a mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import typer
from claims_grid import Grid, NotTestableError, UnfitTableError, numbers, per_seed, read_grid
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.analysis.estimates import Reals, estimate, holm
from orchestrator.results.parquet import read_results
from orchestrator.types import Scalar as Label

#: The reward models of the paper, as the shipped sweeps name them.
BT, CLF = "bt_mlp", ("clf_mlp", "clf_lgb")
#: "Strong noise": annotators of beta up to here (paper: the error rates from 29 % on).
STRONG_NOISE = 1.0
#: Below this share of wrong labels BT is said to be slightly better.
FEW_ERRORS = 0.10
#: "Hardly under diversified" is taken to mean: less than this part of the gain under `similar`, either way.
HARDLY = 0.25

CLAIMS = {
    "a": "The flip rate grows strictly as beta falls",
    "b": f"Under strong noise (beta <= {STRONG_NOISE:g}) classification is at least as good as Bradley-Terry",
    "c": f"Bradley-Terry is better only where fewer than {FEW_ERRORS:.0%} of the labels are wrong",
    "d": "Cross-prompt pairs beat same-prompt pairs, most under `similar`, hardly under `diversified`",
    "e": "More annotations help",
}
#: Printed with the verdicts.
NOTES = {
    "a": "By construction nearly certain: stage `annotate` decides the same pairs with the same luck at every beta.",
    "b": "Tested as: better. Equality cannot be proved, and comes out as undecided.",
    "c": "'Slightly' is not tested: see the estimate.",
}


@dataclass(frozen=True)
class Hypothesis:
    """Effects that are all positive if a claim is true."""

    claim: str
    statement: str
    metric: str
    effects: Callable[[Grid, str], dict[str, Reals]]
    """From a grid and the metric: name of an effect -> its size in each seed (seeds,)."""


@dataclass(frozen=True)
class Finding:
    """What the table says about a hypothesis; numbers are None where it cannot be tested."""

    claim: str
    statement: str
    metric: str
    verdict: str
    """holds, does not hold, undecided, or not testable."""
    effect: str | None = None
    """The weakest effect, to which the numbers belong."""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm_p: float | None = None
    holm_p_opposite: float | None = None
    reason: str | None = None
    """Why it cannot be tested."""


def released_pairing(grid: Grid) -> dict[str, Sequence[Label]]:
    """The cells of the paper's main study: its trainer pairs across prompts."""
    return {"pairing": ["cross"]} if "pairing" in grid.axes else {}


def flips_grow(grid: Grid, metric: str) -> dict[str, Reals]:
    """Each beta against the next larger one; a negative one is noise-free, hence the largest."""
    betas = sorted(numbers(grid, "beta"), key=lambda beta: math.inf if beta < 0 else beta)
    if len(betas) < 2:
        raise NotTestableError("the sweep does not vary beta")
    return {
        f"beta {noisy:g} against {clean:g}": per_seed(grid.difference(metric, "beta", noisy, clean, {}))
        for noisy, clean in pairwise(betas)
    }


def better_under_noise(clf: str) -> Callable[[Grid, str], dict[str, Reals]]:
    """A classifier against BT at every strong-noise beta together."""

    def effects(grid: Grid, metric: str) -> dict[str, Reals]:
        strong = [beta for beta in numbers(grid, "beta") if 0 <= beta <= STRONG_NOISE]
        if not strong:
            raise NotTestableError(f"the sweep has no beta up to {STRONG_NOISE:g}")
        at = {**released_pairing(grid), "beta": strong}
        return {f"{clf} against {BT}": per_seed(grid.difference(metric, "reward_model", clf, BT, at))}

    return effects


def by_errors(better: str, worse: str, few: bool) -> Callable[[Grid, str], dict[str, Reals]]:
    """One reward model against another where few of the labels are wrong, or where many are.

    Which is which is told by the mean flip rate over the seeds, so that all seeds are judged on the same cells.
    """

    def effects(grid: Grid, metric: str) -> dict[str, Reals]:
        at = released_pairing(grid)
        gap = grid.difference(metric, "reward_model", better, worse, at)
        flips = grid.cells("flip_rate", {**at, "reward_model": [better]}).mean(axis=0)
        chosen = flips < FEW_ERRORS if few else flips >= FEW_ERRORS
        if not chosen.any():
            raise NotTestableError(
                f"no cells with {'under' if few else 'at least'} {FEW_ERRORS:.0%} of the labels wrong"
            )
        flat = gap.reshape(len(gap), -1)
        return {f"{better} against {worse}": flat[:, chosen.ravel()].mean(axis=1)}

    return effects


def cross_gain(grid: Grid, metric: str, sampling: Label | None = None) -> Reals:
    """cross against same (seeds,), over all samplings or in one."""
    at = {} if sampling is None else {"sampling": [sampling]}
    return per_seed(grid.difference(metric, "pairing", "cross", "same", at))


def cross_helps(grid: Grid, metric: str) -> dict[str, Reals]:
    """cross against same over everything."""
    return {"cross against same": cross_gain(grid, metric)}


def most_under_similar(grid: Grid, metric: str) -> dict[str, Reals]:
    """The gain under `similar` against that under each other sampling."""
    grid.require("sampling", ["similar"])
    others = [label for label in grid.labels("sampling") if label != "similar"]
    if not others:
        raise NotTestableError("the sweep has no sampling but `similar`")
    most = cross_gain(grid, metric, "similar")
    return {f"gain under similar against {other}": most - cross_gain(grid, metric, other) for other in others}


def hardly_under_diversified(grid: Grid, metric: str) -> dict[str, Reals]:
    """The gain under `diversified` lies within +-HARDLY of that under `similar`."""
    limit = HARDLY * cross_gain(grid, metric, "similar")
    gain = cross_gain(grid, metric, "diversified")
    return {"room above the gain": limit - gain, "room below the gain": limit + gain}


def annotations_help(reward_model: str) -> Callable[[Grid, str], dict[str, Reals]]:
    """Each number of annotations against the next smaller one."""

    def effects(grid: Grid, metric: str) -> dict[str, Reals]:
        counts = sorted(numbers(grid, "annotations"))
        if len(counts) < 2:
            raise NotTestableError("the sweep does not vary the number of annotations")
        at = {**released_pairing(grid), "reward_model": [reward_model]}
        return {
            f"{more:,} against {fewer:,}": per_seed(grid.difference(metric, "annotations", more, fewer, at))
            for fewer, more in pairwise(counts)
        }

    return effects


HYPOTHESES: tuple[Hypothesis, ...] = (
    Hypothesis("a", "more flips at each smaller beta", "flip_rate", flips_grow),
    *(
        Hypothesis("b", f"{clf} better than {BT} at beta <= {STRONG_NOISE:g}", metric, better_under_noise(clf))
        for clf in CLF
        for metric in ("improvement", "pairwise_accuracy")
    ),
    *(
        Hypothesis(
            "c", f"{BT} better than {clf} below {FEW_ERRORS:.0%} errors", "improvement", by_errors(BT, clf, few=True)
        )
        for clf in CLF
    ),
    *(
        Hypothesis(
            "c", f"{clf} better than {BT} from {FEW_ERRORS:.0%} errors", "improvement", by_errors(clf, BT, few=False)
        )
        for clf in CLF
    ),
    Hypothesis("d", "cross better than same", "improvement", cross_helps),
    Hypothesis("d", "the gain is largest under similar", "improvement", most_under_similar),
    Hypothesis("d", f"the gain under diversified is below {HARDLY:g} of that", "improvement", hardly_under_diversified),
    *(
        Hypothesis("e", f"more annotations are better for {model}", "improvement", annotations_help(model))
        for model in (BT, *CLF)
    ),
)


def findings(grid: Grid, confidence: float = 0.95) -> list[Finding]:
    """What the grid says about each hypothesis, in the order of `HYPOTHESES`."""
    level = (1 - confidence) / 2
    report = [_measure(each, grid, confidence) for each in HYPOTHESES]
    places = [place for place, each in enumerate(report) if each.p is not None]
    adjusted = holm([report[place].p or 0.0 for place in places])
    opposite = holm([report[place].holm_p_opposite or 0.0 for place in places])
    for place, p, against in zip(places, adjusted, opposite, strict=True):
        verdict = "holds" if p < level else "does not hold" if against < level else "undecided"
        report[place] = replace(report[place], verdict=verdict, holm_p=p, holm_p_opposite=against)
    return report


def _measure(hypothesis: Hypothesis, grid: Grid, confidence: float) -> Finding:
    """The weakest effect of a hypothesis, with p values that are not adjusted yet."""
    about = (hypothesis.claim, hypothesis.statement, hypothesis.metric)
    try:
        effects = hypothesis.effects(grid, hypothesis.metric)
    except NotTestableError as reason:
        return Finding(*about, "not testable", reason=str(reason))
    estimates = {name: estimate(effect, confidence) for name, effect in effects.items()}
    weakest = max(estimates, key=lambda name: (estimates[name].p_greater, -estimates[name].mean))
    found = estimates[weakest]
    # One negative effect is enough to refute: Bonferroni over the effects.
    opposite = min(1.0, len(estimates) * min(each.p_less for each in estimates.values()))
    return Finding(
        *about, "undecided", weakest, found.mean, found.low, found.high, found.p_greater, found.p_greater, opposite
    )


def claim_verdict(found: Sequence[Finding]) -> str:
    """The verdict on a claim from those on its hypotheses; what cannot be tested keeps it from holding."""
    verdicts = {each.verdict for each in found}
    if "does not hold" in verdicts:
        return "does not hold"
    return verdicts.pop() if len(verdicts) == 1 else "undecided"


def as_json(grid: Grid, found: Sequence[Finding], confidence: float) -> dict[str, Any]:
    """The report for machines."""
    return {
        "cells": math.prod(map(len, grid.axes.values())),
        "seeds": len(grid.axes["seed"]),
        "confidence": confidence,
        "claims": [
            {
                "claim": claim,
                "statement": CLAIMS[claim],
                "verdict": claim_verdict([each for each in found if each.claim == claim]),
            }
            for claim in CLAIMS
        ],
        "hypotheses": [asdict(each) for each in found],
    }


_COLOURS = {"holds": "green", "does not hold": "red", "undecided": "yellow", "not testable": "dim"}


def show(console: Console, grid: Grid, found: Sequence[Finding], confidence: float) -> None:
    """Print the report."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, justify in (("", "left"), ("hypothesis", "left"), ("metric", "left"), ("weakest effect", "left"),
                             ("estimate", "right"), (f"{confidence:.0%} interval", "right"), ("p", "right"),
                             ("Holm p", "right"), ("opposite", "right"), ("verdict", "left")):  # fmt: skip
        table.add_column(heading, justify=justify, no_wrap=heading != "hypothesis")  # type: ignore[arg-type]
    for claim in CLAIMS:
        for each in (each for each in found if each.claim == claim):
            numbers = [""] * 5
            if each.estimate is not None:
                ends = f"{each.low:+.4f} … {each.high:+.4f}"
                tests = [_p(value) for value in (each.p, each.holm_p, each.holm_p_opposite)]
                numbers = [f"{each.estimate:+.4f}", ends, *tests]
            verdict = f"[{_COLOURS[each.verdict]}]{each.verdict}[/]"
            about = escape(each.effect or each.reason or "")
            table.add_row(claim, escape(each.statement), each.metric, about, *numbers, verdict)
        table.add_section()
    console.print(table)
    console.print()
    for claim, statement in CLAIMS.items():
        verdict = claim_verdict([each for each in found if each.claim == claim])
        console.print(f"({claim}) {escape(statement)}: [bold {_COLOURS[verdict]}]{verdict}[/]")
        if claim in NOTES:
            console.print(f"    [dim]{escape(NOTES[claim])}[/]")
    cells, seeds = math.prod(map(len, grid.axes.values())), len(grid.axes["seed"])
    console.print(
        f"[dim]{cells:,} cells; effects are means within a seed, intervals and tests are Student's t over {seeds}"
        f" seeds; a verdict needs a Holm p below {(1 - confidence) / 2:g}[/]"
    )


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def main(
    table: Annotated[str, typer.Argument(metavar="RESULTS", help="results.parquet of a sweep, or its folder.")],
    confidence: Annotated[float, typer.Option("--confidence", metavar="SHARE", min=0.5, max=0.999)] = 0.95,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Test the paper's claims on the results of a finished sweep."""
    try:
        grid = read_grid(read_results(table))
    except (UnfitTableError, ValueError, FileNotFoundError) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]{escape(table)}: {escape(str(error))}[/]")
        raise typer.Exit(2) from error
    found = findings(grid, confidence)
    if json_:
        print(json.dumps(as_json(grid, found, confidence), indent=1))
    else:
        console = Console(soft_wrap=True, highlight=False)
        # A log or a pipe has no edge at which a table would have to be cut off.
        show(console if console.is_terminal else Console(highlight=False, width=240), grid, found, confidence)


if __name__ == "__main__":
    typer.run(main)
