"""The live page: what it shows, where it gets it, and that it changes nothing. In a browser: see test_browser.py."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa
import pytest
import toy
import toy_sweep
from streamlit.testing.v1 import AppTest
from subjects import opened, planned

import dashboards
from dashboards.live.cell_data import explain, steps_shown
from dashboards.live.charts import COLOURS, grid_chart
from dashboards.live.stages import stages_shown
from dashboards.live.text import plain
from dashboards.live.tiles import default_axes, tiles
from dashboards.live.watch import SHOWN, Look, Subject, Watch, load_subject
from orchestrator.drive import drive
from orchestrator.explain.throughput import Throughput
from orchestrator.results.heartbeat import pack_codes, remove_heartbeat, write_heartbeat
from orchestrator.results.parquet import read_results, write_results
from orchestrator.results.status import STATUSES
from orchestrator.results.table import Results
from orchestrator.run.schedule import State
from orchestrator.session import Session
from orchestrator.sweep.problems import SweepError

PAGE = Path(dashboards.__file__).with_name("live") / "page.py"
HTML = "<img src=x onerror=window.pwned=1>"
#: Half of the cells fail; names and messages are as nasty as they may be.
NASTY = toy_sweep.SWEEP.replace(
    "plain: {behaviour: work}", f"plain: {{behaviour: work}}\n    '{HTML}': {{behaviour: markup}}"
).replace("Does adding work?", "Does '*adding*' <b>work</b>?")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A sweep that was run."""
    folder = tmp_path_factory.mktemp("nasty")
    subject = Subject(toy_sweep.write_sweep(folder, NASTY), outputs=str(folder / "out"))
    drive(opened(subject), None, True, None)
    return subject


def page(subject: Subject, monkeypatch: pytest.MonkeyPatch, **parameters: str) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["page.py", subject.dump()])
    app = AppTest.from_file(str(PAGE), default_timeout=120)
    for name, value in parameters.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def beat(session: Session, states: dict[str, dict[str, int]], codes: list[int], errors: Sequence[Any] = ()) -> None:
    """What a driver would say."""
    throughput = Throughput(dict.fromkeys(session.plan.entries, 1.0), frozenset())
    throughput.add("source", "", 2.0)
    every = dict.fromkeys(map(str, State), 0)
    steps = {name: {**every, **states.get(name, {})} for name in session.plan.entries}
    cells = pack_codes(np.array(codes, np.uint8))
    ahead = {
        name: {"": sum(each[state] for state in ("pending", "running", "elsewhere"))} for name, each in steps.items()
    }
    snapshot = {"steps": steps, "cells": cells, "errors": list(errors), "usage": {}}
    times = {"pace": throughput.to_json(ahead), "left": asdict(throughput.eta(ahead))}
    write_heartbeat(session.outputs.folder, {"plan": session.plan.digest, **snapshot, **times})


# --- where it gets it


def test_a_sweep_that_was_never_run_shows_its_plan(tmp_path: Path) -> None:
    look = Watch(planned(tmp_path)).look()
    assert look.cells["status"].tolist() == ["pending"] * 6
    assert look.cells["x"].tolist() == ["1", "1", "2", "2", "3", "3"]
    assert look.cells["cell_id"].tolist() == [cell.id for cell in look.session.plan.cells]
    assert (look.heartbeat, look.written, look.outdated, look.trouble) == (None, None, 0, None)


def test_without_a_driver_the_table_alone_suffices(nasty: Subject, tmp_path: Path) -> None:
    table = opened(nasty).outputs.results
    bare = Subject(nasty.file, outputs=str(tmp_path))
    opened(bare).outputs.folder.mkdir(parents=True)
    opened(bare).outputs.results.write_bytes(table.read_bytes())
    look = Watch(bare).look()
    assert look.cells["status"].value_counts().to_dict() == {
        "succeeded": 6, "failed": 6, "running": 0, "pending": 0, "blocked": 0,
    }  # fmt: skip
    done = look.cells[look.cells["status"] == "succeeded"]
    assert done["total"].tolist() == [2 * (x + x + 1) + y for x in (1, 2, 3) for y in (10, 20)]
    assert [(each.status, each.error_class, each.cells, each.example) for each in look.errors()] == [
        ("failed", "ValueError", 6, toy.MARKUP)
    ]


def test_the_pulse_of_a_driver_outweighs_the_table(tmp_path: Path) -> None:
    subject = planned(tmp_path)
    watch, session = Watch(subject), opened(subject)
    states = {"source": {"committed": 3, "running": 2, "pending": 1}, "double": {"failed": 1, "pending": 5}}
    error = {"status": "failed", "error_class": "E", "cells": 1, "example": "said", "log": None}
    beat(session, states, [0, 1, 2, 2, 3, 4], [error])
    look = watch.look()
    assert look.cells["status"].tolist() == ["succeeded", "running", "pending", "pending", "blocked", "failed"]
    assert [tuple(each) for each in look.errors()] == [("failed", "E", 1, "said", None)]
    rows = {row["stage"]: row for row in stages_shown(watch.stages(look)).to_dict("records")}
    assert rows["source"]["done"] == 50
    assert rows["source"]["committed"] == "3 / 6"
    assert rows["source"]["seconds"] == "2 s"
    # Three steps of 2 s ± half of it, one after another; nobody knows how long the others take.
    left = look.left
    assert left
    assert (left.low, left.high, left.unknown, left.steps) == (3.0, 12.0, 5, 8)
    assert rows["double"]["left"] == "?"


def test_a_driver_that_is_gone_runs_nothing(tmp_path: Path) -> None:
    subject = planned(tmp_path)
    watch, session = Watch(subject), opened(subject)
    results = Results(session.plan, session.store, session.schedule)
    session.schedule.codes[:] = State.RUNNING
    write_results(results.table(), session.outputs.results)
    beat(session, {}, [1] * 6)
    assert set(watch.look().cells["status"]) == {"running"}
    remove_heartbeat(session.outputs.folder)
    assert set(watch.look().cells["status"]) == {"pending"}


def test_a_changed_sweep_file_is_noticed_and_its_results_are_not_taken_for_the_old_ones(tmp_path: Path) -> None:
    subject = planned(tmp_path)
    drive(opened(subject), None, True, None)
    watch = Watch(subject)
    before = watch.look()
    assert (before.cells["status"] == "succeeded").all()
    subject.file.write_text(toy_sweep.SWEEP.replace("y: [10, 20]", "y: [10, 30]").replace("x: [1, 2, 3]", "x: [1, 2]"))
    look = watch.look()
    assert look.cells.groupby("y", observed=True)["status"].unique().map(list).to_dict() == {
        "10": ["succeeded"], "30": ["pending"],
    }  # fmt: skip
    assert look.outdated == 0
    # Another value under the same label: the cells are the same, their steps are not.
    subject.file.write_text(toy_sweep.SWEEP.replace("{value: $x}", "{value: $x, marker: m}"))
    look = watch.look()
    assert set(look.cells["status"]) == {"pending"}
    assert look.cells["total"].isna().all()
    assert look.outdated == 6


def test_a_driver_of_another_version_of_the_file_is_not_listened_to(tmp_path: Path) -> None:
    subject = planned(tmp_path)
    beat(opened(subject), {}, [0] * 6)
    subject.file.write_text(toy_sweep.SWEEP.replace("x: [1, 2, 3]", "x: [1, 2, 4]"))
    assert Watch(subject).look().heartbeat is None


def test_a_table_of_other_code_is_said_to_be_unreadable(tmp_path: Path) -> None:
    subject = planned(tmp_path)
    folder = opened(subject).outputs.folder
    folder.mkdir(parents=True)
    (folder / "results.parquet").write_bytes(b"PAR1 torn")
    look = Watch(subject).look()
    assert look.trouble
    assert set(look.cells["status"]) == {"pending"}


def test_looking_changes_nothing(nasty: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything() -> dict[str, tuple[int, int]]:
        paths = Path(nasty.outputs or "").rglob("*")
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}

    # Even damage is left to those who can mend it.
    torn = next(Path(nasty.outputs or "").glob("store/artifacts/toy_total/*/manifest.json"))
    text = torn.read_text()
    torn.write_text("torn")
    before = everything()
    watch = Watch(nasty)
    look = watch.look()
    watch.stages(look)
    found = [explain(look, name) for name in look.cells["cell_id"]]
    page(nasty, monkeypatch)
    page(nasty, monkeypatch, cell=look.cells["cell_id"][0])
    assert everything() == before
    torn.write_text(text)
    assert ["damaged" in set(steps_shown(each)["state"]) for each in found].count(True) == 1


# --- what it shows


def test_squares_count_statuses_and_average_finished_cells(nasty: Subject) -> None:
    look = Watch(nasty).look()
    found = tiles(look.cells, "x", "y", "total")
    assert len(found) == 6
    for row in found.to_dict("records"):
        x, y = int(row["x"]), int(row["y"])
        assert (row["column"], row["row"]) == ([1, 2, 3].index(x), [10, 20].index(y))
        assert {status: row[status] for status in SHOWN if row[status]} == {"succeeded": 1, "failed": 1}
        # The failed one has no number, and is no zero.
        assert (row["cells"], row["n"], row["mean"]) == (2, 1, 2 * (x + x + 1) + y)
    (one,) = tiles(look.cells[look.cells["x"] == "2"], "x", "x", "total").to_dict("records")
    assert (one["cells"], one["n"], one["mean"], one["sd"]) == (4, 2, 25.0, pytest.approx(50**0.5))
    nothing = tiles(look.cells[look.cells["kind"] == HTML], "x", "y", "total")
    assert nothing["mean"].isna().all()


@pytest.mark.parametrize("measure", [None, "total", "seconds"])
def test_the_grid_is_valid_vega_lite_with_labels_as_they_are(nasty: Subject, measure: str | None) -> None:
    cells = Watch(nasty).look().cells
    labels = list(cells["kind"].cat.categories), list(cells["x"].cat.categories)
    spec = grid_chart(tiles(cells, "kind", "x", measure), ("kind", "x"), labels, measure, (1, 0))
    alt.Chart.from_dict(spec).to_dict()
    text = json.dumps(spec, allow_nan=False)
    frame = next(layer for layer in spec["layer"] if layer.get("name") == "frame")
    assert json.dumps(HTML) in json.loads(text)["layer"][0]["encoding"]["x"]["axis"]["labelExpr"]
    assert [value["thick"] for value in frame["data"]["values"]] == [1.0, 1.0, 1.0, 2.5, 1.0, 1.0]
    assert list(COLOURS) == list(SHOWN) == [each for each in STATUSES if each != "undecided"]


def test_the_axes_at_first_are_those_of_the_summary_then_those_with_most_values(tmp_path: Path) -> None:
    assert default_axes(Watch(planned(tmp_path)).look()) == ("x", "y")
    text = toy_sweep.SWEEP + "summary: {by: [kind, y]}\n"
    assert default_axes(Watch(planned(tmp_path, text)).look()) == ("y", "kind")


def test_markdown_leaves_plain_text_alone() -> None:
    assert plain("a *b* [c](d)\n<e> :red[f] $g$ _h") == r"a \*b\* \[c\]\(d\) \<e\> \:red\[f\] \$g\$ \_h"


def test_commands_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    subject = Subject(Path("my sweep.yaml"), ("axes.x=['a b', c]",), outputs="/a b")
    words = shlex.split(subject.command("run", "--error", "My; Error"))
    assert words == [
        "sweep", "run", "my sweep.yaml", "--error", "My; Error", "-s", "axes.x=['a b', c]", "--outputs", "/a b",
    ]  # fmt: skip
    assert load_subject(subject.dump()) == subject


# --- the page


def shown(app: AppTest) -> str:
    """All text of a page that is Markdown, as it was written."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "expander")
    return "\n".join(
        str(getattr(each, "value", getattr(each, "label", ""))) for kind in kinds for each in app.get(kind)
    )


def test_the_page_escapes_what_it_shows(nasty: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(nasty, monkeypatch)
    assert app.title[0].value == "toy"
    assert "6 of 12 cells finished" in shown(app)
    # No Markdown of the sweep's own is left: every one of its marks is escaped.
    for text in ("<script>", "[a link]", "*adding*", "<b>", "$x$"):
        assert text not in shown(app)
        assert plain(text) in shown(app)


@pytest.mark.parametrize("missing", [("log",), ("log", "error"), ("log", "error", "error_class")])
def test_a_failed_cell_without_a_log_or_a_message_is_on_the_page(
    nasty: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    table = read_results(opened(nasty).outputs.results)
    for name in missing:
        # The last of the six has them still.
        values = table[name].to_pylist()
        last = max(place for place, value in enumerate(values) if value)
        kept = [value if place == last else None for place, value in enumerate(values)]
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(kept, pa.string()))
    bare = Subject(nasty.file, outputs=str(tmp_path))
    write_results(table, opened(bare).outputs.results)
    found = Watch(bare).look().errors()
    assert sum(each.cells for each in found) == 6
    assert {each.log for each in found} <= {None, *table["log"].to_pylist()}
    app = page(bare, monkeypatch)
    assert sum(int(each.label.split()[0].strip("*")) for each in app.expander) == 6
    if "error_class" in missing:
        # What nobody noted down is not guessed.
        assert "unknown" in {each.error_class for each in found}


def test_means_say_what_is_missing_in_them(nasty: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(nasty, monkeypatch, x="y", y="kind", colour="total")
    assert "Means" not in shown(app)
    table = read_results(opened(nasty).outputs.results)
    lost = [status == "succeeded" and x == 1 and y == 10 for status, x, y in
            zip(*(table[name].to_pylist() for name in ("status", "x", "y")), strict=True)]  # fmt: skip
    status = ["pending" if each else old for each, old in zip(lost, table["status"].to_pylist(), strict=True)]
    place = table.column_names.index("status")
    table = table.set_column(place, table.schema.field("status"), pa.array(status))
    bare = Subject(nasty.file, outputs=str(tmp_path))
    write_results(table, opened(bare).outputs.results)
    app = page(bare, monkeypatch, x="y", y="kind", colour="total")
    (told,) = (line for line in shown(app).splitlines() if line.startswith(plain("Means: ")))
    assert told == plain(
        "Means: 1 of 6 cells have no number (1 pending); left out, as the arms have no pairs there: 1 of 3 values of x."
    )


def test_filters_and_the_colour_choose_what_is_shown(nasty: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(nasty, monkeypatch, x="y", y="kind", colour="total")
    titles = [each.value for each in app.subheader]
    assert "Mean total by kind and y" in titles
    assert "12 cells" in titles
    app.multiselect(key="only_x").select("2").run()
    app.multiselect(key="only_status").select("failed").run()
    assert "2 cells" in [each.value for each in app.subheader]
    app.multiselect(key="only_status").set_value(["blocked"]).run()
    assert "No cell passes the filters." in [each.value for each in app.info]
    assert not app.exception


def test_a_deep_link_opens_a_cell_with_its_steps_and_log(nasty: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Watch(nasty).look()
    failed = look.cells[look.cells["status"] == "failed"].iloc[0]
    app = page(nasty, monkeypatch, cell=failed["cell_id"])
    assert app.title[0].value == f"Cell {failed['cell_id']}"
    tables = [table.value for table in app.dataframe]
    (steps,) = [table for table in tables if "state" in table.columns]
    assert dict(zip(steps["stage"], steps["state"], strict=True)) == {
        "source": "committed", "double": "committed", "total": "failed",
    }  # fmt: skip
    assert app.selectbox(key="log").value == "total, attempt 1: failed"
    app.button[0].click().run()
    assert app.title[0].value == "toy"


def test_a_cell_that_is_not_there_is_said_to_be_missing(nasty: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(nasty, monkeypatch, cell="'><script>")
    assert [each.value for each in app.error] == ["There is no such cell."]


def test_a_sweep_that_was_never_run_shows_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = page(planned(tmp_path), monkeypatch)
    assert "has not been run here yet" in shown(app)
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_the_sweep_file_is_shown_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = planned(tmp_path)
    app = page(subject, monkeypatch)
    subject.file.write_text(toy_sweep.SWEEP.replace("{value: $x}", "{valu: $x}"))
    with pytest.raises(SweepError):
        Watch(subject).look()
    app.run()
    assert not app.exception
    assert "cannot be read" in app.error[0].value


def test_statuses_live_from_the_pulse_are_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = planned(tmp_path)
    beat(opened(subject), {"source": {"running": 1, "pending": 5}}, [0, 1, 1, 2, 2, 2])
    app = page(subject, monkeypatch)
    text = shown(app)
    assert "1 of 6 cells finished" in text
    assert "running" in text
    assert "updated" in text


def test_a_look_knows_how_old_it_is(tmp_path: Path) -> None:
    subject = planned(tmp_path)
    watch = Watch(subject)
    assert watch.look().updated is None
    beat(opened(subject), {}, [2] * 6)
    look: Look = watch.look()
    assert look.updated
    assert abs(time.time() - look.updated) < 60
