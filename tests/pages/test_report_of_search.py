"""The report of a search compares best trials, and lists them."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_runs
import toy_sweep

from dashboards.report.write import write_report
from orchestrator.sweep.problems import SweepError


def test_the_report_of_a_search_is_of_the_best_trials(tmp_path: Path) -> None:
    session = toy_runs.open_toy(tmp_path, text=toy_sweep.SEARCH)
    with pytest.raises(SweepError, match="no study is finished"):
        write_report(session, session.table(), tmp_path / "report")
    _, session = toy_runs.run_inline(tmp_path, text=toy_sweep.SEARCH)
    text = write_report(session, session.table(), tmp_path / "report").read_text()
    assert "What the search found" in text
    assert "Of each study only the best trial counts, at its fresh values." in text
    assert "2 cells (2 kind × 1 seeds): 2 succeeded" in text
    assert "by-kind" in "".join(path.name for path in (tmp_path / "report/tables").iterdir())
    assert not list((tmp_path / "report/tables").glob("*trial*"))
