"""No sentence of the report says what its tables do not: claims, ranks, leads and winners, on made-up results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dashboards.report.claims import claims
from dashboards.report.differences import differences
from dashboards.report.ranking import LEVEL, rankings
from dashboards.report.section import Section, Table
from dashboards.report.shares import splits
from dashboards.report.study import Study
from dashboards.report.tables import comparisons, means
from dashboards.report.verdict import verdict
from dashboards.report.winners import winner_map
from dashboards.report.write import sections
from orchestrator.analysis.comparisons import compare
from orchestrator.results.table import Results
from orchestrator.session import Session, open_session
from orchestrator.sweep.analysis import Analysis

pytestmark = pytest.mark.usefixtures("quick_collector")

SWEEP = """\
name: truth
question: Which arm is best?
axes:
  corpus: {x: {add: 0}, y: {add: 100}}
  arm: {a: {value: 1}, b: {value: 2}, c: {value: 3}}
  level: [1, 2, 4]
  seed: [0, 1, 2]
stages:
  source: {stage: toy_source, config: {value: $arm.value}}
  sized: {stage: toy_double, inputs: {number: source}, config: {add: $level}}
  drawn: {stage: toy_double, inputs: {number: sized}, config: {add: $seed}}
  total: {stage: toy_total, inputs: {numbers: drawn}, config: {add: $corpus.add}}
results: [total]
summary: {by: [arm, level]}
tracking: false
uses: [toy]
namespace: toy
"""
ANALYSIS = """\
analysis:
  primary: {metric: total, better: BETTER, by: corpus}
  claims:
    a-beats-b: {compare: {arm: [a, b]}}
    gap-falls: {slope: level, of: {compare: {arm: [a, c]}}, expect: negative}
    b-like-c: {compare: {arm: [b, c]}, equivalent: 0.5}
"""
CELLS = 2 * 3 * 3 * 3


def opened(folder: Path, analysis: str = ANALYSIS.replace("BETTER", "higher")) -> Session:
    folder.mkdir(exist_ok=True)
    (folder / "truth.yaml").write_text(SWEEP + analysis)
    return open_session(folder / "truth.yaml", outputs=str(folder / "out"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("truth")


def made_up(session: Session, luck: int, gain: float, missing: float) -> pa.Table:
    """Random numbers; `gain` from arm to arm against luck of size 1; a share of the cells has failed."""
    table = Results(session.plan, session.store, session.schedule).table()
    random = np.random.default_rng(luck)
    arm = np.array([ord(each) for each in table["arm"].to_pylist()])
    level = np.array(table["level"].to_pylist())
    values = random.standard_normal(CELLS) + gain * arm * (1 + random.standard_normal() * (level - 2))
    gone = random.random(CELLS) < missing
    columns: dict[str, pa.Array] = {
        "status": pa.array(["failed" if each else "succeeded" for each in gone]),
        "total": pa.array(values, mask=gone),
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table


def number(text: str) -> float:
    return float(text.replace("<0.0001", "0"))


def lines_of(table: Table) -> Iterator[dict[str, str]]:
    for row in table.rows:
        yield dict(zip(table.columns, row, strict=True))


def table_of(section: Section, name: str) -> Table:
    return next(each for each in section.tables if each.name == name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(luck=77, gain=-3.0, missing=0.4, better="higher")
@given(
    luck=st.integers(0, 10**6),
    gain=st.sampled_from([0.0, 1.0, -3.0]),
    missing=st.sampled_from([0.0, 0.1, 0.4, 0.8]),
    better=st.sampled_from(["higher", "lower"]),
)
def test_what_is_said_of_ranks_and_leads_stands_in_the_tables(
    folder: Path, luck: int, gain: float, missing: float, better: str
) -> None:
    session = opened(folder / better, ANALYSIS.replace("BETTER", better))
    study = Study(session, made_up(session, luck, gain, missing))
    if not study.metrics:
        return
    compared = compare(study.sample, "arm", (), study.metrics, ["corpus"])
    ranked = rankings(compared, "total", study.lower)
    depends = differences(study, compared, ranked)
    said = verdict(study, ranked, depends, splits(study)).text
    tables = comparisons(study, compared, depends)
    averages = means(study)
    in_table = {(each["corpus"], each["difference"]): each for each in lines_of(table_of(tables, "comparisons"))}
    for corpus in "xy":
        mine = [each.removeprefix(f"At corpus {corpus}: ") for each in said if each.startswith(f"At corpus {corpus}: ")]
        (best,) = (each for each in mine if each.startswith("by total"))
        if "can be ranked" in best:
            continue
        found = re.search(
            r"arm (.*?) (?:has|are level, with) the best mean over .*?: (\S+?)(?:, against (.*))?\.$", best
        )
        assert found
        ranking = {label: float(found[2]) for label in found[1].split(" and ")}
        ranking |= {label: float(mean) for mean, label in re.findall(r"(\S+) \((\w)\)", found[3] or "")}
        (row,) = (row for row in table_of(averages, f"all-metrics-{corpus}").rows if row[0] == "total")
        columns = table_of(averages, f"all-metrics-{corpus}").columns
        listed = {label: float(mean.split(" ")[0]) for label, mean in zip(columns[1:], row[1:], strict=True) if mean}
        # Four digits there, three decimals here.
        assert ranking == pytest.approx(listed, abs=2e-3, rel=2e-3)
        assert list(ranking.values()) == sorted(ranking.values(), reverse=better == "higher")
        first = found[1].split(" and ")[0]
        leads = [each for each in mine if re.match(rf"{first} - \w: ", each)]
        assert len(leads) == len(listed) - len(found[1].split(" and "))
        for lead in leads:
            other = lead[4]
            sign = 1 if (corpus, f"{first} - {other}") in in_table else -1
            line = in_table[corpus, f"{first} - {other}" if sign > 0 else f"{other} - {first}"]
            difference = number(lead.split(": ")[1].split(",")[0].split(" (")[0])
            assert difference == pytest.approx(sign * number(line["mean"]), abs=1e-9)
            # Means are rounded to four digits.
            rounded = 1e-3 + 5e-4 * (abs(ranking[first]) + abs(ranking[other]))
            assert difference == pytest.approx(ranking[first] - ranking[other], rel=5e-4, abs=rounded)
            assert (difference > 0) == (better == "higher")
            if "Holm p" in lead:
                assert f"Holm p {line['Holm p']}: " in lead
                assert lead.endswith(": clear.") == (number(line["Holm p"]) < LEVEL)
                low, high = (number(each) for each in re.findall(r"interval (\S+) to (\S+) for", lead)[0])
                ends = sorted(sign * number(each) for each in line["new seeds"].split(" … "))
                assert [low, high] == pytest.approx(ends)
        for each in mine:
            if "depends on" in each:
                assert_dependence(each, corpus, table_of(tables, "interactions"))


def assert_dependence(said: str, corpus: str, table: Table) -> None:
    found = re.match(
        r"the difference (\w - \w) in total depends on (\w+) \(Holm p (\S+)\): from (.*); the average", said
    )
    assert found
    lines = {
        each["where"]: each
        for each in lines_of(table)
        if each["corpus"] == corpus and each["difference"] == found[1] and each["where"].startswith(f"{found[2]} = ")
    }
    assert found[3] in {each["Holm p"] for each in lines.values()}
    assert number(found[3]) < LEVEL
    ends = re.findall(r"(\S+) at (\S+)", found[4])
    assert len(ends) == 2
    assert all(lines[f"{found[2]} = {where}"]["mean"] == difference for difference, where in ends)
    values = [number(each["mean"]) for each in lines.values() if each["mean"]]
    assert {number(difference) for difference, _ in ends} == {min(values), max(values)}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    luck=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.2, 0.6]), better=st.sampled_from(["higher", "lower"])
)
def test_who_wins_where_is_counted_from_the_table(folder: Path, luck: int, missing: float, better: str) -> None:
    session = opened(folder / better, ANALYSIS.replace("BETTER", better))
    study = Study(session, made_up(session, luck, 3.0, missing))
    (section,) = winner_map(study)
    lines = list(lines_of(section.tables[0])) if section.tables else []
    for label in "abc":
        said = next((each for each in section.text if each.startswith(f"{label}: ")), None)
        mine = [each for each in lines if each["winner"] == label]
        clear = [each for each in mine if each["lead is"] == "clear"]
        assert said in (None, f"{label}: best in {len(mine)} of {len(lines)}, clearly in {len(clear)}.")
        assert said or not lines
    for each in lines:
        assert (each["lead is"] == "clear") == (number(each["Holm p"]) < LEVEL)
        assert (number(each["lead"]) > 0) == (better == "higher")
        where = {"corpus": [each["corpus"]], "level": [int(each["level"])]}
        values = study.sample.means("total", "arm", ("a", "b", "c"), where)
        assert each["winner"] == (max if better == "higher" else min)(values, key=lambda arm: values[arm])
        assert number(each["mean"]) == pytest.approx(values[each["winner"]], rel=1e-3)


def test_nothing_is_best_on_average_over_an_axis_that_is_never_averaged_over(tmp_path: Path) -> None:
    session = opened(tmp_path)
    found = {each.name: each for each in sections(Study(session, made_up(session, 1, 3.0, 0.0)))}
    for section in found.values():
        for text in section.text:
            if "best mean" in text:
                assert re.match(r"At corpus [xy]: by total", text)
        for figure in section.figures:
            assert figure.name == "claims" or figure.name.endswith(("-x", "-y"))
        for table in section.tables:
            if {"mean", "winner", "spread"} & set(table.columns) and table.name != "claims":
                assert "corpus" in table.columns or table.name.endswith(("-x", "-y"))


def test_the_report_begins_with_the_verdicts_on_the_claims_and_the_numbers_that_they_are_from(tmp_path: Path) -> None:
    session = opened(tmp_path)
    first, *_ = sections(Study(session, made_up(session, 1, 3.0, 0.0)))
    assert first.name == "claims"
    lines = list(lines_of(first.tables[0]))
    assert [(each["claim"], each["at"]) for each in lines] == [
        (claim, f"corpus={corpus}") for claim in ("a-beats-b", "gap-falls", "b-like-c") for corpus in "xy"
    ]
    for claim in ("a-beats-b", "gap-falls", "b-like-c"):
        (said,) = (each for each in first.text if each.startswith(f"{claim}: "))
        verdicts = {each["verdict"] for each in lines if each["claim"] == claim}
        expected = (
            "does not hold" if "does not hold" in verdicts else "undecided" if len(verdicts) > 1 else verdicts.pop()
        )
        assert said.startswith(f"{claim}: {expected}. Claimed: ")
    assert [figure.name for figure in first.figures] == ["claims"]
    chart = first.figures[0].chart.to_dict()
    # One panel for each scale and corpus, one line for each finding, in the colour of its verdict.
    rows = [row for panel in chart["vconcat"] for row in panel["layer"][-1].get("data", panel.get("data"))["values"]]
    drawn = sorted((row["estimate"], row["verdict"]) for row in rows)
    assert [each for _, each in drawn] == [
        each["verdict"] for each in sorted(lines, key=lambda each: number(each["mean"]))
    ]
    assert len(chart["vconcat"]) == 4
    assert [row["band_low"] for row in rows if "band_low" in row] == [-0.5, -0.5]


def test_a_change_of_the_analysis_after_results_exist_is_told_with_its_date(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = made_up(session, 1, 1.0, 0.0)
    before = claims(Study(session, table)).text
    assert any(re.search(rf"declared on \d{{4}}-\d\d-\d\d, when {CELLS} cells had a result", each) for each in before)
    (file,) = (session.outputs.folder / "analysis").glob("declared-*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"declared": "2024-02-29T12:00:00+00:00"}))
    assert any("declared on 2024-02-29, when" in each for each in claims(Study(session, table)).text)
    changed = opened(tmp_path, ANALYSIS.replace("BETTER", "lower"))
    after = claims(Study(changed, table)).text
    assert any(re.search(r"it was changed \(primary.better\) on \d{4}-\d\d-\d\d", each) for each in after)


@pytest.mark.parametrize("analysis", ["", "analysis: {primary: {metric: total, better: lower, by: corpus}}\n"])
def test_without_claims_the_report_says_what_to_add_and_that_fits_the_sweep(tmp_path: Path, analysis: str) -> None:
    session = opened(tmp_path, analysis)
    first, second, *_ = sections(Study(session, made_up(session, 1, 1.0, 0.1)))
    assert not first.figures
    ((title, text),) = first.code
    assert title == "What could be added to the sweep file"
    added: Any = yaml.safe_load(text)["analysis"]
    Analysis.model_validate(added)
    assert added["primary"]["metric"] == "total"
    assert added["primary"].get("by", None) == (["corpus"] if analysis else None)
    again = opened(tmp_path / "again", text)
    assert claims(Study(again, made_up(again, 1, 1.0, 0.1))).tables[0].rows
    assert ("best mean" in " ".join(second.text)) == bool(analysis)


def test_shares_of_the_variation_add_up_and_what_goes_with_the_seed_is_called_chance(tmp_path: Path) -> None:
    session = opened(tmp_path)
    found = {each.name: each for each in sections(Study(session, made_up(session, 1, 0.0, 0.0)))}
    for table in found["shares"].tables:
        names = [row[0] for row in table.rows]
        assert names[-1] == "chance (seed)"
        assert {"arm", "level"} < set(names)
        assert not any("seed" in name for name in names[:-1])
        assert sum(number(row[1].removesuffix(" %")) for row in table.rows) == pytest.approx(100, abs=0.3)


def test_a_study_of_which_only_one_seed_is_there_has_no_interval_and_no_clear_lead(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = made_up(session, 1, 3.0, 0.0)
    one = table.filter(pa.array([each == 0 for each in table["seed"].to_pylist()]))
    found = {each.name: each for each in sections(Study(session, one))}
    said = found["verdict"].text
    assert any("hence no interval" in each for each in said)
    assert not any(each.endswith(": clear.") for each in said)
    assert all(each["verdict"] == "not testable" for each in lines_of(found["claims"].tables[0]))
    assert sum(each.endswith("clearly in 0.") for each in found["winners"].text) == 3
