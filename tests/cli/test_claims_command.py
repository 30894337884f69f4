"""`sweep claims` of a study of plain functions, one of which writes a table of its test prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_server import sweep

from orchestrator import read_results
from orchestrator.analysis import tested
from orchestrator.cli import console
from orchestrator.cli.show_results import show_claims
from orchestrator.results.format import Format, export
from orchestrator.session import open_session
from orchestrator.statistics.crossed import crossed

LONG = "each-arm-is-better-than-the-next-one-whatever-the-temperature-of-the-annotator-is"
ODD = "[bold]gr\u00f6\u00dfer[/bold] | & 100 % \u2028"
STUDY = """\
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ARMS = ["worse", "fair", "good"]


class Metrics(TypedDict):
    gain: float
    size: float


def measure(arm: str, beta: float, seed: int, out: Path, extra: float = 0.0, broken: bool = False) -> Metrics:
    if broken and (arm, beta, seed) == ("fair", 4, 1):
        raise ValueError("on request")
    rank = ARMS.index(arm)
    hard = np.random.default_rng(1).normal(size=30)
    luck = np.random.default_rng([seed, int(beta), rank])
    gain = rank + extra - extra**2 + 0.1 * rank * hard + 0.2 * luck.normal(size=30) + 0.1 * luck.normal()
    pq.write_table(pa.table({"text": [f"prompt {n}" for n in range(30)], "gain": gain}), out / "prompts.parquet")
    return {"gain": float(gain.mean()), "size": 30.0 * beta}
"""
SWEEP = f"""\
name: claimed
question: Which arm is better?
axes: {{arm: [good, fair, worse], beta: [1, 2, 4], seed: [0, 1, 2]}}
stages:
  measure: {{stage: "mine:measure", config: {{arm: $arm, beta: $beta, seed: $seed}}}}
tracking: false
analysis:
  primary: {{metric: gain, better: higher}}
  random: {{seed: seed, prompt: measure/prompts.parquet}}
  claims:
    {LONG}: {{compare: {{arm: [good, fair, worse]}}}}
    {json.dumps(ODD)}: {{compare: {{arm: [good, fair]}}, each: beta}}
    same: {{compare: {{arm: [fair, good]}}, equivalent: 0.01}}
    shrinks: {{slope: beta, log: true, of: {{compare: {{arm: [good, worse]}}}}, expect: negative}}
    hot: {{compare: {{arm: [good, worse]}}, within: {{beta: 4}}}}
    grows: {{slope: beta, metric: size, expect: positive}}
"""
VERDICTS = {
    LONG: "holds", ODD: "holds", "same": "does not hold", "shrinks": "undecided", "hot": "holds",
    "grows": "not testable",
}  # fmt: skip


def study(folder: Path, text: str = SWEEP) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(STUDY)
    (folder / "sweep.yaml").write_text(text)
    return folder


def run(folder: Path, code: int = 0) -> Path:
    done = sweep(folder, "run", "sweep.yaml", "--inline")
    assert done.returncode == code, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(study(tmp_path_factory.mktemp("claims")))


@pytest.fixture(scope="module")
def examined(ran: Path) -> tested.Tested:
    return tested.examine(open_session(ran / "sweep.yaml", outputs=str(ran / "outputs")))


def refuse(name: str) -> object:
    raise AssertionError(f"{name} is no JSON")


def claims(folder: Path, *options: str) -> dict[str, Any]:
    """What the command says for machines."""
    done = sweep(folder, "claims", "sweep.yaml", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, parse_constant=refuse)  # type: ignore[no-any-return]


def findings(told: dict[str, Any], claim: str) -> list[dict[str, Any]]:
    (found,) = (each["findings"] for each in told["claims"] if each["claim"] == claim)
    return found  # type: ignore[no-any-return]


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {each["claim"]: each["verdict"] for each in told["claims"]}


def test_each_claim_has_its_verdict_and_both_units(ran: Path) -> None:
    told = claims(ran)
    assert verdicts(told) == VERDICTS
    lacking = "27 of 27 cells have no size by single prompts: measure/prompts.parquet has no numbers in a column 'size'"
    assert told["notes"][0] == f"grows: {lacking}"
    (hot,) = findings(told, "hot")
    # Restated: paired differences of single prompts at beta 4, seeds by prompts.
    table = read_results(ran / "outputs" / "sweeps" / "claimed").to_pylist()
    files = sorted((ran / "outputs" / "store" / "artifacts").rglob("prompts.parquet"))
    by_mean = {float(np.mean(gains)): gains for gains in (pq.read_table(file)["gain"].to_numpy() for file in files)}
    assert len(by_mean) == 27
    gains = {(row["arm"], row["seed"]): by_mean[row["gain"]] for row in table if row["beta"] == 4}
    singles = np.array([gains["good", seed] - gains["worse", seed] for seed in (0, 1, 2)])
    literal = crossed(singles, ("seed", "prompt"))
    assert (hot["seeds"], hot["prompts"], hot["cells"], hot["missing"]) == (3, 30, 6, 0)
    assert hot["estimate"] == pytest.approx(singles.mean())
    for unit, expected in (("new_prompts", literal.all), ("these_prompts", literal.fixed["seed"])):
        numbers = [hot[unit][name] for name in ("error", "df", "low", "high", "p")]
        names = ("error", "df", "low", "high", "p")
        assert numbers == pytest.approx([getattr(expected, name) for name in names]), unit
    # One finding of three betas for each value.
    assert [each["at"] for each in findings(told, ODD)] == [{"beta": 1}, {"beta": 2}, {"beta": 4}]
    assert told["family"] == 7
    (grows,) = findings(told, "grows")
    assert (grows["new_prompts"], grows["p"], grows["prompts"]) == (None, None, 0)
    assert "the same for every seed" in grows["reason"]


def test_another_confidence_narrows_the_intervals(ran: Path, examined: tested.Tested) -> None:
    wide, narrow = (
        findings(told, "hot")[0]["new_prompts"] for told in (examined.record(), claims(ran, "--confidence", "0.6"))
    )
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    assert wide["p"] == narrow["p"]


@pytest.mark.parametrize("width", [80, 60])
def test_people_read_every_claim_verdict_and_number_whole(
    examined: tested.Tested, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.console, "width", width)
    show_claims(examined)
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    flat = [word for line in lines for word in line]
    # Names are folded at most, and never cut.
    squeezed = "".join(flat)
    for name, verdict in VERDICTS.items():
        written = name.replace("\u2028", r"\u2028")
        assert "".join(f"{written}: {verdict}.".split()) in squeezed
    assert "\u2028" not in text
    for each in examined.findings:
        for value in examined.line(each).values():
            parts = value.split()
            assert any(flat[at : at + len(parts)] == parts for at in range(len(flat) + 1)), value
    assert "Holm over the 7 lines with a p" in " ".join(flat)
    # Only names that are wider than the terminal are.
    wide = [line for line in text.splitlines() if len(line) > width]
    assert all(LONG in line or r"\u2028" in line for line in wide), wide


def test_claims_are_written_to_files_of_each_format(ran: Path, examined: tested.Tested, tmp_path: Path) -> None:
    for name in ("claims.parquet", "claims.tex"):
        done = sweep(ran, "claims", "sweep.yaml", "--output", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (0, f"8 rows: {tmp_path / name}\n"), done.stderr
        # Beside the file, not in it.
        assert "no numbers in a column 'size'" in done.stderr
    rows = pq.read_table(tmp_path / "claims.parquet").to_pylist()
    told = examined.record()
    assert [(row["claim"], row["verdict"]) for row in rows] == [
        (claim["claim"], each["verdict"]) for claim in told["claims"] for each in claim["findings"]
    ]
    (hot,) = (row for row in rows if row["claim"] == "hot")
    (again,) = findings(told, "hot")
    assert (hot["estimate"], hot["new_prompts_low"]) == (again["estimate"], again["new_prompts"]["low"])
    assert hot["statement"] == "arm good has higher gain than worse at beta = 4"
    assert len(export(examined.table(people=False), Format.CSV).decode().splitlines()) == 9
    markdown = export(examined.table(people=True), Format.MD).decode().splitlines()
    assert markdown[0].startswith("| claim | at | effect | mean | new seeds and new prompts | new seeds, these prompts")
    assert r"\[bold\]größer\[/bold\] \| &amp; 100 % \\u2028" in markdown[3]
    latex = (tmp_path / "claims.tex").read_text()
    assert latex.count(r"\\") == 9
    assert r"\& 100 \% \textbackslash{}u2028" in latex
    assert sweep(ran, "claims", "sweep.yaml", "--json", "--output", "x.csv").returncode == 2
    odd = sweep(ran, "claims", "sweep.yaml", "--output", "claims.doc")
    assert (odd.returncode, "ends with none of" in odd.stderr) == (2, True)


def test_a_sweep_without_claims_is_told_how_to_write_one(tmp_path: Path) -> None:
    done = sweep(study(tmp_path, SWEEP[: SWEEP.index("  claims:")]), "claims", "sweep.yaml", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "sweep.yaml: analysis: the sweep declares no claims; write what it is to show: analysis: {primary:"
        in " ".join(done.stderr.split())
    )


def test_before_there_are_results_every_claim_is_listed_and_none_is_testable(tmp_path: Path) -> None:
    folder = study(tmp_path)
    told = tested.examine(open_session(folder / "sweep.yaml", outputs=str(tmp_path / "outputs"))).record()
    assert set(verdicts(told).values()) == {"not testable"}
    assert told["family"] == 0
    assert findings(told, "hot")[0]["reason"] == "no cell has a number of gain yet"
    assert told["notes"][0] == "27 of 27 cells have no result (27 pending)"
    done = sweep(folder, "claims", "sweep.yaml")
    assert done.returncode == 0
    assert "hot: not testable. arm good has higher gain than worse at beta = 4." in done.stdout
    assert "no line has a p" in done.stdout


def test_failed_cells_are_counted_and_cost_no_other_pair(tmp_path: Path) -> None:
    folder = run(study(tmp_path, SWEEP.replace("seed: $seed}}", "seed: $seed, broken: true}}")), 1)
    told = claims(folder)
    # At beta 4 two seeds are left for good and fair.
    assert verdicts(told) == VERDICTS | {ODD: "undecided"}
    assert [each["seeds"] for each in findings(told, ODD)] == [3, 3, 2]
    assert "1 of 27 cells have no result (1 failed)" in told["notes"]
    (same,) = findings(told, "same")
    assert (same["seeds"], same["combinations"], same["cells"], same["missing"]) == (3, 3, 18, 1)
    assert same["notes"] == ["1 of 18 cells have no number (1 failed)"]
    (hot,) = findings(told, "hot")
    assert (hot["missing"], hot["notes"]) == (0, [])


def test_values_that_s_took_away_make_a_claim_not_testable_and_no_error(ran: Path) -> None:
    told = claims(ran, "-s", "axes.beta=[1, 2]")
    assert verdicts(told) == VERDICTS | {"hot": "not testable"}
    assert findings(told, "hot")[0]["reason"] == "there are no cells of beta = 4"
    assert [each["at"] for each in findings(told, ODD)] == [{"beta": 1}, {"beta": 2}]
    without = claims(ran, "-s", "axes.arm=[good, worse]")
    assert verdicts(without) == VERDICTS | dict.fromkeys((LONG, ODD, "same"), "not testable")
    assert findings(without, "same")[0]["reason"] == "there are no cells of arm = fair"


def test_of_a_search_the_best_trials_are_compared_at_fresh_seeds(tmp_path: Path) -> None:
    text = SWEEP.replace(", beta: [1, 2, 4], seed: [0, 1, 2]}", "}").replace(
        "stages:",
        """\
search:
  tune:
    space: {extra: {float: [0, 1]}}
    objective: {metric: gain, better: higher, over: {seed: [0]}}
    sampler: {name: RandomSampler}
    trials: 3
    fresh: {seed: [5, 6, 7]}
stages:""",
    )
    text = text.replace("beta: $beta", "beta: 4, extra: $tune.extra")
    text = text[: text.index("  claims:")] + "  claims: {better: {compare: {arm: [good, worse]}}}\n"
    told = claims(run(study(tmp_path, text)))
    (found,) = findings(told, "better")
    assert (found["verdict"], found["seeds"], found["cells"], found["prompts"]) == ("holds", 3, 6, 30)
    assert told["notes"][0] == "of each study only the best trial counts, at its fresh values"
    rows = read_results(tmp_path / "outputs" / "sweeps" / "claimed").to_pylist()
    fresh = {(row["arm"], row["seed"]): row["gain"] for row in rows if row["seed"] in (5, 6, 7)}
    assert len(fresh) == 9
    assert found["estimate"] == pytest.approx(np.mean([fresh["good", s] - fresh["worse", s] for s in (5, 6, 7)]))


def test_looks_at_fewer_seeds_are_said(ran: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(ran, folder)
    (folder / "outputs" / "sweeps" / "claimed" / "analysis" / "looks.json").write_text('{"2": "2026-01-02T03:04:05"}')
    told = claims(folder)
    assert any("results were tested before with 2 seeds (2026-01-02)" in each for each in told["notes"])
    (folder / "outputs" / "sweeps" / "claimed" / "analysis" / "looks.json").write_text("torn")
    done = sweep(folder, "claims", "sweep.yaml")
    assert done.returncode != 0
    assert "looks.json is no record of looks" in done.stderr
    assert "Traceback" not in done.stderr
