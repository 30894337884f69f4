"""Figures of the report: every value has its tick, rows of panels fill the page; and published numbers beside ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dashboards.report.figures import HALF, PAGE, Axis, Figure, curves
from dashboards.report.intervals import Panel, differences_chart, findings_chart
from dashboards.report.published import published
from dashboards.report.study import Study
from orchestrator.results.metrics import reported_metrics
from orchestrator.results.table import Results
from orchestrator.session import open_session

SWEEPS = Path(__file__).parents[2] / "sweeps"
#: As in the paper.
BEST_OF = (2, 5, 10, 30, 50, 100, 300, 500)


def svg_of(chart: Any) -> str:
    return Figure("", "", "", chart).svg()


def width(svg: str) -> float:
    found = re.search(r'<svg[^>]* width="([\d.]+)"', svg)
    assert found
    return float(found[1])


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


@pytest.mark.parametrize("count", [0, 2, 3, 6])
def test_every_n_has_its_tick_without_overlap_and_panels_fill_the_page(count: int) -> None:
    panels = Axis("policy", tuple(f"policy-{place}" for place in range(count))) if count else None
    colour = Axis("reward_model", ("bt_mlp", "clf_mlp", "clf_lgb"))
    rows = [
        {"n": n, "mean": n / 7000, "sd": 0.01, "reward_model": label, "policy": panel}
        for n in BEST_OF
        for label in colour.labels
        for panel in (panels.labels if panels else ("",))
    ]
    svg = svg_of(curves(rows, Axis("n", BEST_OF), "best_of_N", colour, panels))
    columns = min(count, 3) or 1
    for n in BEST_OF:
        assert texts(svg).count(str(n)) == columns
    assert width(svg) == pytest.approx(PAGE if panels else HALF, rel=0.04)
    slanted = re.findall(r"<text [^>]*rotate\((\d+)\)[^>]*>(?:300|500)</text>", svg)
    # Upright they would run into each other in a third of a page.
    assert set(slanted) == ({"315"} if columns == 3 else set())


def test_a_chart_of_differences_has_both_intervals_and_a_line_at_zero_for_each_other_value() -> None:
    colour = Axis("model", ("bt", "clf <&>", "lgb"))
    rows = [
        {"beta": beta, "model": other, "estimate": 0.1, "low": 0.0, "high": 0.2, "new_low": -0.1, "new_high": 0.3}
        for beta in (0.5, 1, 10)
        for other in ("clf <&>", "lgb")
    ]
    chart = differences_chart(rows, Axis("beta", (0.5, 1, 10)), colour, "bt", "improvement")
    svg = svg_of(chart)
    assert {"clf <&amp;>", "clf &lt;&amp;&gt;"} & set(texts(svg))
    assert "bt minus" in texts(svg)
    widths = re.findall(r'aria-roledescription="rule mark"[^>]*stroke-width="([\d.]+)"', svg)
    assert widths.count("1.2") == widths.count("4") == len(rows)
    assert "0.5" in texts(svg)
    assert "10" in texts(svg)


def test_findings_without_intervals_or_with_long_names_are_drawn_and_no_name_is_cut() -> None:
    name = "a-claim-with-a-name-that-is-much-longer-than-what-fits-on-one-line-of-the-figure"
    rows = [{"label": f"{name[:36]}\n{name[36:72]}\n{name[72:]}", "estimate": 0.2, "verdict": "not testable"}]
    svg = svg_of(findings_chart([Panel("difference in improvement", rows)]))
    assert all(part in svg for part in (name[:36], name[36:72], name[72:]))
    assert "…" not in svg
    assert width(svg) == pytest.approx(PAGE, rel=0.04)


def test_where_a_sweep_lacks_axes_of_published_numbers_all_are_listed_and_no_difference_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDINGS", str(tmp_path))
    for split in ("train", "test"):
        for kind in ("embd", "reward"):
            (tmp_path / f"{kind}_gemma-2b_gemma-2b_harmless_{split}.npy").touch()
    session = open_session(SWEEPS / "embeddings.yaml", outputs=str(tmp_path / "out"))
    table = Results(session.plan, session.store, session.schedule).table()
    random = np.random.default_rng(0)
    columns = {"status": pa.array(["succeeded"] * len(table))}
    columns |= {name: pa.array(0.5 + 0.01 * random.standard_normal(len(table))) for name in reported_metrics(table)}
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    (section,) = published(Study(session, table))
    improvement, annotations = section.tables
    assert improvement.columns == [
        "dataset", "policy", "reward_model", "published, read to ±0.005", "ours", "sd over seeds",
    ]  # fmt: skip
    assert len(improvement.rows) == 36
    assert {row[0] for row in improvement.rows} == {"harmless", "helpful"}
    by_model = {row[2]: row[4] for row in improvement.rows}
    assert all(row[4] == by_model[row[2]] for row in improvement.rows)
    assert all(float(row[4]) == pytest.approx(0.5, abs=0.01) for row in improvement.rows)
    assert (
        "This sweep has no dataset and no policy: beside its numbers stand all that are published." in section.text[0]
    )
    assert annotations.columns[:4] == ["dataset", "policy", "reward_model", "annotations"]
    assert not section.figures
