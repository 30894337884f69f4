"""What MLflow is to show lies on disk: nothing is lost to a crash, nothing is there twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tracking.journal import Journal
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.runs import Run
from orchestrator.tracking.sent import Delivery, Sent


def run(id_: str, value: float = 1.0, group: tuple[str, ...] = ("x=1",)) -> Run:
    return Run(
        id=id_,
        name=f"cell {id_}",
        group=group,
        succeeded=True,
        started=1.5,
        ended=2.5,
        params={"x": "1"},
        metrics={"total": value},
        tags={"sweep.kind": "cell", "sweep.cell_id": id_},
        curve=(("loss", 10, 0.5),),
    )


def test_what_is_posted_is_read_back_as_it_was_by_another_reader(tmp_path: Path) -> None:
    outbox, other = Outbox(tmp_path), Outbox(tmp_path)
    assert outbox.post([run("a"), run("b")]) == 2
    assert other.follow() == (True, {"a": run("a"), "b": run("b")})
    assert other.follow() == (False, {})
    assert other.digests == outbox.digests == {"a": run("a").digest, "b": run("b").digest}


def test_only_what_changed_is_posted_and_the_time_is_no_change(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.post([run("a"), run("b")])
    size = outbox.journal.path.stat().st_size
    later = Run(**{**vars(run("a")), "started": 9.0, "ended": 10.0})
    assert Outbox(tmp_path).post([later, run("b")]) == 0
    assert outbox.journal.path.stat().st_size == size
    assert Outbox(tmp_path).post([run("a", 2.0), run("b")], gone=["b", "never there"]) == 2
    assert outbox.follow() == (False, {"a": run("a", 2.0), "b": None})
    assert set(outbox.digests) == {"a"}


def test_two_drivers_see_what_the_other_posted(tmp_path: Path) -> None:
    one, other = Outbox(tmp_path), Outbox(tmp_path)
    one.post([run("a")])
    other.post([run("b")])
    assert one.post([run("a"), run("b"), run("c")]) == 1
    other.follow()
    assert set(other.digests) == {"a", "b", "c"}


@given(cut=st.integers(min_value=0))
def test_a_line_that_a_crash_tore_is_left_out_and_costs_no_other(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    Outbox(folder).post([run("a")])
    path = folder / "runs.jsonl"
    whole = path.stat().st_size
    Outbox(folder).post([run("b")])
    os.truncate(path, whole + cut % (path.stat().st_size - whole))
    outbox = Outbox(folder)
    outbox.follow()
    assert set(outbox.digests) == {"a"}
    outbox.post([run("b"), run("c")])
    again = Outbox(folder)
    assert again.follow()[1] == {"a": run("a"), "b": run("b"), "c": run("c")}


def test_a_file_that_takes_the_place_of_another_is_read_from_its_beginning(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(['{"n":1}'])
    other = Journal(tmp_path / "j")
    assert [line.get("n") for line in other.read()[1]] == [None, 1]
    journal.replace(['{"n":2}', '{"n":3}'])
    anew, lines = other.read()
    assert anew
    assert [line["n"] for line in lines if "n" in line] == [2, 3]
    (tmp_path / "j").unlink()
    assert other.read() == (True, [])


def test_the_table_is_known_until_something_else_is_posted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.post([run("a")], table="t1")
    assert outbox.table == "t1"
    again = Outbox(tmp_path)
    again.follow()
    assert again.table == "t1"
    again.post([run("b")])
    outbox.follow()
    assert again.table is outbox.table is None


def test_what_was_begun_and_never_noted_as_sent_is_uncertain(tmp_path: Path) -> None:
    sent, other = Outbox(tmp_path).sent("here"), Outbox(tmp_path).sent("here")
    sent.note({"begun": ["a", "b"]}, durable=True)
    sent.note({"sent": [["a", "digest", "run"]]})
    other.follow()
    for each in (sent, other):
        assert each.uncertain == {"b"}
        assert each.runs == {"a": Delivery("digest", "run")}
    other.note({"gone": ["a", "b"]})
    sent.follow()
    assert (sent.uncertain, sent.runs) == (set(), {})


def test_each_mlflow_has_a_file_of_its_own(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.sent("here").note({"sent": [["a", "digest", "run"]]})
    there: Sent = outbox.sent("there")
    there.follow()
    assert there.runs == {}


def test_who_starts_anew_is_followed_by_all(tmp_path: Path) -> None:
    one, other = Outbox(tmp_path).sent("here"), Outbox(tmp_path).sent("here")
    one.note({"sent": [["a", "digest", "run"]]})
    other.follow()
    one.restart(("7", 123))
    other.follow()
    assert (other.experiment, other.runs) == (("7", 123), {})


def test_a_journal_is_json_for_anybody(tmp_path: Path) -> None:
    Outbox(tmp_path).post([run("a")], table="t")
    lines = [json.loads(text) for text in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["file"], ["digest", "ended", "run", "started"], ["table"]]
