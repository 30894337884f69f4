"""When an analysis was declared, and with how many seeds results were looked at: written down, and said."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import toy_runs
import toy_sweep

from orchestrator.analysis.declared import declare, history, notes
from orchestrator.analysis.looks import look
from orchestrator.cli.show_run import run_and_show
from orchestrator.session import Session, open_session
from orchestrator.store import StoreError
from orchestrator.store.atomic import replace_file

ANALYSIS = """\
analysis:
  primary: {metric: total, better: higher}
  claims:
    more: {compare: {x: [3, 1]}}
"""
TODAY = f"{datetime.now(UTC):%Y-%m-}"


def opened(folder: Path, analysis: str = ANALYSIS) -> Session:
    return toy_runs.open_toy(folder, text=toy_sweep.SWEEP + analysis)


def redated(session: Session, **dates: str) -> None:
    """Give what was declared other dates: digest of it -> date."""
    for file in (session.outputs.folder / "analysis").glob("declared-*.json"):
        content = json.loads(file.read_text())
        content["declared"] = dates[content["analysis"]["primary"]["better"]]
        replace_file(file, json.dumps(content).encode())


def test_a_run_declares_the_analysis_before_there_are_results_and_nothing_is_to_be_said(tmp_path: Path) -> None:
    session = opened(tmp_path)
    assert notes(session) == ["this analysis was not declared in a run yet"]
    assert run_and_show(session, None, True, None) == 0
    (declared,) = history(session)
    assert (declared.results, declared.analysis["claims"]) == (0, {"more": {"compare": {"x": [3, 1]}}})
    assert declared.when.isoformat().startswith(TODAY)
    assert notes(session) == []
    # Whatever is run later, the first date counts.
    declare(session, 6)
    assert run_and_show(opened(tmp_path), None, True, None) == 0
    assert history(session) == [declared]


def test_what_is_declared_after_results_were_there_is_said_with_its_date_and_what_changed(tmp_path: Path) -> None:
    assert run_and_show(opened(tmp_path), None, True, None) == 0
    changed = opened(
        tmp_path,
        ANALYSIS.replace("more: {compare: {x: [3, 1]}}", "less: {compare: {x: [1, 3]}}").replace("higher", "lower"),
    )
    assert notes(changed) == ["this analysis was not declared in a run yet"]
    assert run_and_show(changed, None, True, None) == 0
    first, second = history(changed)
    assert (first.results, second.results) == (0, 6)
    redated(changed, higher="2026-01-02T03:04:05+00:00", lower="2026-02-03T04:05:06+00:00")
    assert notes(changed) == [
        "it was changed (claims.less, claims.more, primary.better) on 2026-02-03, when 6 cells had a result: what was "
        "seen by then may have shaped it"
    ]
    # Whoever goes back to the first one is told of the others.
    assert notes(opened(tmp_path)) == ["since it was declared on 2026-01-02, another one was declared (2026-02-03)"]
    # How it is written does not matter.
    spaced = opened(
        tmp_path, ANALYSIS.replace("{metric: total, better: higher}", "{better: 'higher',   metric: total}")
    )
    assert notes(spaced) == notes(opened(tmp_path))


def test_an_analysis_that_comes_with_the_results_was_declared_then(tmp_path: Path) -> None:
    assert run_and_show(opened(tmp_path, ""), None, True, None) == 0
    assert history(opened(tmp_path, "")) == []
    assert notes(opened(tmp_path, "")) == []
    session = opened(tmp_path)
    declare(session, 1_234)
    (said,) = notes(session)
    assert re.fullmatch(rf"it was declared on {TODAY}\d\d, when 1,234 cells had a result: what was seen .*", said)


def test_of_many_changes_the_first_are_named(tmp_path: Path) -> None:
    declare(opened(tmp_path), 0)
    several = "".join(f"    c{number}: {{compare: {{x: [3, 1]}}}}\n" for number in range(9))
    session = opened(tmp_path, ANALYSIS + several)
    declare(session, 5)
    files = {each.digest: each for each in history(session)}
    later = max(files.values(), key=lambda each: each.results)
    file = session.outputs.folder / "analysis" / f"declared-{later.digest}.json"
    replace_file(file, json.dumps(json.loads(file.read_text()) | {"declared": "2999-01-01T00:00:00+00:00"}).encode())
    (said,) = notes(session)
    assert said.startswith(
        "it was changed (claims.c0, claims.c1, claims.c2, claims.c3, claims.c4, claims.c5 and 3 more)"
    )


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "\udcff".encode("utf-8", "surrogateescape").decode("latin1"), '{"declared": "soon"}',
     '{"declared": "2026-01-01T00:00:00+00:00", "cells_with_results": "x", "analysis": {}}',
     '{"declared": "2026-01-01T00:00:00+00:00", "cells_with_results": 1, "analysis": 3}',
     '{"declared": "2026-01-01T00:00:00+00:00", "cells_with_results": 1}',
     '{"declared": "2026-01-01T00:00:00", "cells_with_results": 1, "analysis": {}}'],
)  # fmt: skip
def test_a_file_that_declares_nothing_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    session = opened(tmp_path)
    declare(session, 0)
    file = session.outputs.folder / "analysis" / "declared-0123456789abcdef.json"
    replace_file(file, content.encode("latin1"))
    with pytest.raises(StoreError, match=rf"{re.escape(str(file))} is no declared analysis .*delete it"):
        notes(session)


def test_looks_with_fewer_seeds_are_said_with_their_dates(tmp_path: Path) -> None:
    session = opened(tmp_path)
    assert look(session, 3) is None
    assert look(session, 3) is None
    said = look(session, 5)
    assert said is not None
    assert re.fullmatch(
        rf"results were tested before with 3 seeds \({TODAY}\d\d\): if what they said decided whether seeds were "
        "added, intervals are too narrow and p values too small",
        said,
    )
    # Fewer than were seen before is no look ahead.
    assert look(session, 2) is None
    file = session.outputs.folder / "analysis" / "looks.json"
    assert list(json.loads(file.read_text())) == ["2", "3", "5"]
    assert look(session, 10) is not None
    assert "2 seeds (" in str(look(session, 10))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"three": "2026-01-01"}', '{"3": "soon"}', '{"3": 3}', "\xff", '{"3": null}']
)
def test_looks_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    session = opened(tmp_path)
    look(session, 3)
    file = session.outputs.folder / "analysis" / "looks.json"
    replace_file(file, content.encode("latin1"))
    with pytest.raises(StoreError, match=rf"{re.escape(str(file))} is no record of looks .*delete it"):
        look(session, 5)


def test_where_nothing_can_be_written_it_is_a_store_error(tmp_path: Path) -> None:
    session = opened(tmp_path)
    session.outputs.folder.mkdir(parents=True, exist_ok=True)
    (session.outputs.folder / "analysis").write_text("in the way")
    for write in (lambda: declare(session, 0), lambda: look(session, 3)):
        with pytest.raises(StoreError):
            write()


def test_outputs_on_objects_remember_as_folders_do(tmp_path: Path, s3: str) -> None:
    text = toy_sweep.SWEEP + ANALYSIS
    session = open_session(toy_sweep.write_sweep(tmp_path, text), outputs=s3)
    declare(session, 0)
    later = ANALYSIS.replace("higher", "lower")
    changed = open_session(toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP + later), outputs=s3)
    assert notes(changed) == ["this analysis was not declared in a run yet"]
    declare(changed, 4)
    redated(changed, higher="2026-01-02T03:04:05+00:00", lower="2026-02-03T04:05:06+00:00")
    assert [each.results for each in history(changed)] == [0, 4]
    assert notes(changed)[0].startswith("it was changed (primary.better) on 2026-02-03, when 4 cells had a result")
    assert look(changed, 3) is None
    assert "3 seeds (" in str(look(changed, 4))
