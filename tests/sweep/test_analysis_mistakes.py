"""Mistakes in `analysis`: one message for each, at its line, with what to write instead."""

# ruff: noqa: E501 (one mistake per line reads best)
from __future__ import annotations

from pathlib import Path

import pytest
import toy_sweep
from sweep_files import mistakes

from orchestrator.plan.build import build_plan
from orchestrator.sweep.load import load_sweep

#: `analysis` begins at line 18; its claim is at line 22.
SWEEP = """\
name: claims
question: What is to be shown?
axes:
  x: [1, 2, 4]
  y: [0, 1]
  name: [red, blue]
  seed: [0, 1]
stages:
  source: {stage: toy_source, config: {value: $x}}
  double: {stage: toy_double, inputs: {number: source}, config: {add: $y}}
  total:
    stage: toy_total
    inputs: {numbers: double}
    config: {add: $seed, marker: $name}
tracking: false
uses: [toy]
namespace: toy
analysis:
  primary: {metric: total, better: higher, by: []}
  random: {seed: seed}
  claims:
    more: {compare: {x: [4, 2, 1]}, within: {y: 1}}
"""
CLAIM = "more: {compare: {x: [4, 2, 1]}, within: {y: 1}}"
PRIMARY = "primary: {metric: total, better: higher, by: []}"
RANDOM = "random: {seed: seed}"
AT = "FILE:22: analysis.claims.more"
#: The same as a search over fresh seeds, of which `analysis` begins at line 22.
SEARCH = (
    toy_sweep.ODD_SEARCH
    + "analysis:\n  primary: {metric: total, better: higher}\n  claims: {a: {compare: {x: [1, 2]}}}\n"
)


def claim(text: str) -> tuple[str, str]:
    return CLAIM, f"more: {text}"


def test_the_sweep_without_a_mistake_has_none(tmp_path: Path) -> None:
    build_plan(load_sweep(toy_sweep.write_sweep(tmp_path, SWEEP)))
    build_plan(load_sweep(toy_sweep.write_sweep(tmp_path, SEARCH)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Names
        (("{metric: total,", "{metric: totl,"), "FILE:19: analysis.primary.metric: there is no metric 'totl'; did you mean 'total'?"),
        (("by: []", "by: [z]"), "FILE:19: analysis.primary.by[0]: there is no axis 'z'; choose from x, y, name, seed"),
        ((RANDOM, f"{RANDOM}\n  secondary: [totl]"), "FILE:21: analysis.secondary[0]: there is no metric 'totl'; did you mean 'total'?"),
        ((RANDOM, f"{RANDOM}\n  secundary: [total]"), "FILE:21: analysis.secundary: unknown field; did you mean 'secondary'?"),
        ((RANDOM, "random: {seed: seeed}"), "FILE:20: analysis.random.seed: there is no axis 'seeed'; did you mean 'seed'?"),
        ((RANDOM, "random: {seed: seed, prompt: totl/p.parquet}"), "FILE:20: analysis.random.prompt: there is no entry 'totl'; did you mean 'total'?"),
        ((RANDOM, "random: {seed: seed, prompt: total/}"), "FILE:20: analysis.random.prompt: name the table that the stage writes: ENTRY/FILE"),
        ((RANDOM, "random: {seed: [seed, y]}"), "FILE:20: analysis.random.seed: is neither an axis nor ENTRY/FILE, the table of single prompts that a stage wrote"),
        (claim("{compare: {z: [4, 2]}}"), f"{AT}.compare: there is no axis 'z'; choose from x, y, name, seed"),
        (claim("{compare: {x: [4, 3]}}"), f"{AT}.compare: 3 is no value of 'x'; choose from 1, 2, 4"),
        (claim("{compare: {name: [red, bleu]}}"), f"{AT}.compare: 'bleu' is no value of 'name'; did you mean 'blue'?"),
        (claim("{compare: {x: [4, 2]}, metric: totl}"), f"{AT}.metric: there is no metric 'totl'; did you mean 'total'?"),
        (claim("{compare: {x: [4, 2]}, each: [z]}"), f"{AT}.each[0]: there is no axis 'z'; choose from x, y, name, seed"),
        (claim("{compare: {x: [4, 2]}, within: {y: 7}}"), f"{AT}.within.y: 7 is no value of 'y'; choose from 0, 1"),
        (claim("{compare: {x: [4, 2]}, within: {z: 7}}"), f"{AT}.within.z: there is no axis 'z'; choose from x, y, name, seed"),
        (claim("{compares: {x: [4, 2]}, slope: x}"), f"{AT}.compares: unknown field; did you mean 'compare'?"),
        # Directions
        (("better: higher", "better: up"), "FILE:19: analysis.primary.better: should be 'higher' or 'lower'; found 'up'"),
        (("better: higher, ", ""), "FILE:19: analysis.primary: say which values of 'total' are better: `better: higher`, or lower"),
        ((PRIMARY, f"{PRIMARY}\n  secondary: [total]"), "FILE:20: analysis.secondary[0]: 'total' is there twice; keep one"),
        # What is random
        (("by: []", "by: [seed]"), "FILE:19: analysis.primary.by[0]: 'seed' is random: its values are the sample, and are neither compared nor held fixed"),
        ((RANDOM, "random: {seed: seed, a: total/a.parquet, b: total/b.parquet}"), "FILE:20: analysis.random.b: prompts are of one kind; name all of their tables in one list"),
        (claim("{compare: {seed: [0, 1]}}"), f"{AT}.compare: 'seed' is random: its values are the sample, and are neither compared nor held fixed"),
        (claim("{slope: seed}"), f"{AT}.slope: 'seed' is random: its values are the sample, and are neither compared nor held fixed"),
        (claim("{compare: {x: [4, 2]}, within: {seed: 1}}"), f"{AT}.within.seed: 'seed' is random, and is never chosen from; leave it out"),
        (claim("{compare: {x: [4, 2]}, each: seed}"), f"{AT}.each[0]: 'seed' is random: its values are the sample, and are neither compared nor held fixed"),
        # Contrasts
        (claim("{compare: {x: [4, 4]}}"), f"{AT}: a value is there twice; keep one"),
        (claim("{compare: {x: [4]}}"), f"{AT}: a comparison needs two values"),
        (claim("{compare: {x: [4, 2], y: [0, 1]}}"), f"{AT}: compares the values of one axis; a difference of differences has `of: {{compare: …}}`"),
        (claim("{metric: total}"), f"{AT}: write compare: {{AXIS: [VALUE, VALUE]}} or slope: AXIS"),
        (claim("{compare: {x: [4, 2]}, slope: y}"), f"{AT}: write compare: {{AXIS: [VALUE, VALUE]}} or slope: AXIS"),
        (claim("{compare: {x: [4, 2]}, log: true}"), f"{AT}: `log` belongs to a slope"),
        (claim("{slope: y, of: {compare: {x: [4, 2, 1]}}}"), f"{AT}: what is contrasted again compares two values"),
        (claim("{slope: x, of: {compare: {x: [4, 2]}}}"), f"{AT}.of.compare: 'x' is contrasted already; keep one"),
        (claim("{compare: {x: [4, 2]}, within: {x: [2]}}"), f"{AT}.within.x: this is what is compared; leave it out"),
        (claim("{compare: {x: [4, 2]}, each: x}"), f"{AT}.each[0]: this is what is compared; leave it out"),
        (claim("{slope: name}"), f"{AT}.slope: a slope needs numbers, which the values of 'name' are not"),
        (claim("{slope: y, log: true}"), f"{AT}.slope: a slope per doubling needs positive values of 'y'"),
        # What is claimed
        (claim("{compare: {x: [4, 2]}, equivalent: 1, no_worse: 1}"), f"{AT}: claims one thing: equivalent or no_worse"),
        (claim("{compare: {x: [4, 2]}, equivalent: 1, expect: positive}"), f"{AT}: claims one thing: expect or equivalent"),
        (claim("{compare: {x: [4, 2, 1]}, equivalent: 1}"), f"{AT}: of an order of several values it can only be claimed that each is better than the next"),
        (claim("{compare: {x: [4, 2]}, equivalent: 0}"), f"{AT}.equivalent: should be greater than 0; found 0"),
        (claim("{compare: {x: [4, 2]}, no_worse: .inf}"), f"{AT}.no_worse: should be a finite number"),
        (claim("{compare: {x: [4, 2]}, expect: up}"), f"{AT}.expect: should be 'positive' or 'negative'; found 'up'"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_at_its_line_with_the_remedy(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert change[0] in SWEEP
    found = mistakes(tmp_path, SWEEP.replace(*change))
    assert found, "no mistake"
    assert found[0].startswith(expected)
    assert len(found) == 1, found


def test_a_claim_about_a_metric_whose_direction_nobody_knows_says_what_to_write(tmp_path: Path) -> None:
    text = SWEEP.replace("results", "").replace("namespace: toy\n", "namespace: toy\nresults: [source, total]\n")
    text = text.replace(CLAIM, "more: {compare: {x: [4, 2]}, metric: value}")
    (found,) = mistakes(tmp_path, text)
    assert found == (
        "FILE:23: analysis.claims.more: it is not known which values of 'value' are better: write `expect: positive`, "
        "or negative, or `secondary: [{metric: value, better: higher}]`"
    )
    for known in (", expect: positive", ", equivalent: 2"):
        sure = text.replace("metric: value", f"metric: value{known}")
        build_plan(load_sweep(toy_sweep.write_sweep(tmp_path, sure)))
    other = text.replace("  claims:", "  secondary: [{metric: value, better: lower}]\n  claims:")
    build_plan(load_sweep(toy_sweep.write_sweep(tmp_path, other)))


def test_a_direction_that_contradicts_a_stage_or_an_objective_is_named(tmp_path: Path) -> None:
    quickstart = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
    (tmp_path / "data").symlink_to(quickstart.parent / "data")
    text = quickstart.read_text()
    whole = (
        "analysis:\n  primary: {metric: improvement, better: lower}\n  secondary: [{metric: spearman, better: lower}]\n"
    )
    found = mistakes(tmp_path, text[: text.index("\nanalysis:") + 1] + whole)
    said = "but its stage says that higher is better"
    assert [each.partition(": ")[2] for each in found] == [
        f"analysis.primary.better: is lower for 'improvement', {said}",
        f"analysis.secondary[0]: is lower for 'spearman', {said}",
    ]
    (against,) = mistakes(
        tmp_path, SEARCH.replace("{metric: total, better: higher}\n", "{metric: total, better: lower}\n")
    )
    assert "search.tune.objective.better: is higher for 'total', but its stage or `analysis` says that lower is better" in against  # fmt: skip


def test_of_a_search_neither_trials_nor_what_is_searched_is_contrasted(tmp_path: Path) -> None:
    (message,) = mistakes(tmp_path, SEARCH.replace("x: [1, 2]}}}\n", "trial: [1, 2]}}}\n"))
    assert message.startswith("FILE:24: analysis.claims.a.compare: trials of a search have nothing in common")
    (message,) = mistakes(tmp_path, SEARCH.replace("x: [1, 2]}}}\n", "add: [1, 2]}}}\n"))
    assert message.startswith("FILE:24: analysis.claims.a.compare: there is no axis 'add'")


def test_values_that_s_took_away_are_no_mistake_and_no_key_changes(tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(tmp_path, SWEEP)
    build_plan(load_sweep(path, ["axes.x=[1, 4]"]))
    with_it, without = (
        build_plan(load_sweep(toy_sweep.write_sweep(tmp_path, text)))
        for text in (SWEEP, SWEEP[: SWEEP.index("analysis:")])
    )
    assert (with_it.digest, with_it.keys) == (without.digest, without.keys)
