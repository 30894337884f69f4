"""What `sweep show` finds in the artifacts of a cell: also in those of kinds that nobody knows, and in damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import exhibits
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drive import drive
from orchestrator.explain import artifact_files, file_views
from orchestrator.explain.shown import show
from orchestrator.explain.views import ArrayView, TableView
from orchestrator.session import Session, open_session
from orchestrator.sweep.problems import SweepError

CELL = "x=2"


def opened(folder: Path, *overrides: str, store: str | None = None) -> Session:
    path = folder / "exhibits.yaml"
    path.write_text(exhibits.SWEEP)
    return open_session(path, list(overrides), outputs=str(folder / "out"), store=store)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sweep has been run."""
    folder = tmp_path_factory.mktemp("exhibits")
    assert drive(opened(folder), None, True, None) == 0
    return folder


@pytest.fixture
def look(folder: Path) -> Callable[..., dict[str, Any]]:
    """Shows the cell, or one entry of it, as it stands now."""

    def look(name: str | None = None) -> dict[str, Any]:
        shown = show(opened(folder), CELL, name)
        # It is JSON, without words that JSON does not have.
        assert json.loads(json.dumps(shown, allow_nan=False)) == json.loads(json.dumps(shown))
        return shown if name is None else shown["entries"][0]

    return look


Look = Callable[..., dict[str, Any]]


# --- what is known of an entry


def test_an_entry_has_its_config_metrics_places_and_origin(look: Look) -> None:
    entry = look("measured")
    (step,) = entry["steps"]
    assert (entry["stage"], entry["state"], entry["metrics"]) == ("exhibit_evaluation", "committed", {"count": 2.0})
    assert entry["config"]["fail"] is False
    assert entry["inputs"] == {"embeddings": ["embedded"], "reward_model": ["model"], "scores": ["golden"]}
    assert Path(step["location"], "best_of.parquet").stat().st_size == entry["files"][0]["bytes"] == step["bytes"]
    assert {"attempt", "seconds", "host", "code_commit", "finished"} <= {
        name for name in step if step[name] is not None
    }
    assert "numpy" in entry["versions"]
    (view,) = entry["views"]
    assert (view["columns"], view["rows"], view["total"]) == (("n", "mean", "sd"), ((2, 0.5, 0.1),), 1)


def test_of_an_entry_in_shards_the_metrics_are_combined_and_the_first_shard_is_looked_at(look: Look) -> None:
    entry = look("answers")
    assert (entry["shards"], len(entry["steps"])) == (2, 2)
    assert entry["metrics"] == {"count": 2.0 * exhibits.PROMPTS * exhibits.RESPONSES}
    assert entry["views"][0]["total"] == exhibits.PROMPTS


def test_without_an_entry_the_telling_ones_are_looked_at_and_all_curves(look: Look) -> None:
    shown = look()
    assert [entry["entry"] for entry in shown["entries"]] == list(opened_entries(shown))
    views = {entry["entry"]: [view["view"] for view in entry["views"]] for entry in shown["entries"]}
    assert views["answers"] == ["responses"]
    assert views["judgments"] == views["verdicts"] == ["judgments"]
    # It feeds a target, so all of it is there.
    assert views["model"] == ["curve", "text"]
    assert views["pairs"] == []


def opened_entries(shown: dict[str, Any]) -> tuple[str, ...]:
    return open_session(Path(shown["links"]["file"])).plan.entries


# --- views


def test_responses_stand_beside_their_golden_and_learned_rewards(look: Look) -> None:
    (view,) = look("answers")["views"]
    assert (view["golden"], view["learned"]["entry"]) == ({"entry": "golden", "note": None}, "model")
    assert "computed here from embedded" in view["learned"]["note"]
    shape = len(view["prompts"]), len(view["prompts"][0]["responses"])
    responses = [each for prompt in view["prompts"] for each in prompt["responses"]]
    assert [prompt["prompt_id"] for prompt in view["prompts"]] == [0, 1, 2]
    assert [each["response_id"] for each in responses] == [0, 1, 2] * 3
    golden = exhibits.scores_of(0)[: shape[0], : shape[1]]
    np.testing.assert_array_equal([each["golden"] for each in responses], golden.ravel())
    # The model of x = 2 has twice the weights.
    learned = exhibits.embeddings_of(0)[: shape[0], : shape[1]] @ (2 * exhibits.WEIGHTS) + exhibits.BIAS
    np.testing.assert_allclose([each["learned"] for each in responses], learned.ravel(), rtol=1e-6)


def test_rewards_that_are_not_there_are_null_and_it_is_said_why(tmp_path: Path) -> None:
    session = opened(tmp_path)
    assert drive(open_session(session.file, outputs=str(tmp_path / "out"), entry="answers"), None, True, None) == 0
    (view,) = show(session, CELL, "answers")["entries"][0]["views"]
    assert {each["golden"] for each in view["prompts"][0]["responses"]} == {None}
    assert view["golden"] == {"entry": "golden", "note": "not there yet"}
    assert view["learned"]["note"] == "not stored, and embedded and model not there yet to compute them from"


@pytest.mark.parametrize("entry", ["judgments", "verdicts"])
def test_judgments_stand_beside_their_pairs_with_verdict_and_label(look: Look, entry: str) -> None:
    (view,) = look(entry)["views"]
    assert (view["total"], view["verdicts"]) == (4, "verdicts")
    # The second one is about the first pair again.
    fields = ("prompt", "first", "second", "hint", "verdict", "chosen", "unread")
    assert [tuple(each[name] for name in fields) for each in view["judgments"]] == [
        ("p0", "good", "bad", 0, 1, 1, ""),
        ("p1", "bad", "good", 2, 1, 2, ""),
        ("p2", "good", "bad", 0, 0, 1, "too long: 900 tokens"),
    ]


def test_a_curve_is_thinned_out_and_keeps_its_ends(look: Look) -> None:
    curve = look("model")["views"][0]
    assert [each["metric"] for each in curve["curves"]] == ["loss", "learning_rate"]
    loss = curve["curves"][0]
    assert (loss["points"], len(loss["steps"]), loss["steps"][0], loss["steps"][-1]) == (1000, 200, 0, 999)
    assert (loss["values"][0], loss["values"][-1]) == (1000.0, 1.0)


def test_files_of_a_kind_that_nobody_knows_are_shown_by_what_they_are(look: Look) -> None:
    entry = look("odd")
    assert [(view["view"], view["file"]) for view in entry["views"]] == [
        ("text", "a.txt"), ("table", "b.csv"), ("table", "c.parquet"), ("unshown", "d.parquet"),
    ]  # fmt: skip
    text, csv, nested, torn = entry["views"]
    assert (text["text"], text["whole"]) == (exhibits.TEXT, True)
    assert (csv["columns"], csv["rows"], csv["total"]) == (("name", "value"), (("two\nlines", "1"), ("short", "")), 2)
    numbers, *others = nested["rows"][0]
    assert (numbers[:2], numbers[-1], others) == ([0, 1], "… 80 more", ["(3 bytes)", "nan", None])
    assert torn["reason"].startswith("cannot be read as parquet")


def test_of_a_wide_table_the_first_columns_and_of_one_with_splits_the_test_rows_are_shown(tmp_path: Path) -> None:
    columns = {f"c{number}": range(5000) for number in range(99)}
    table = pa.table({**columns, "split": ["train"] * 4990 + ["test"] * 10})
    pq.write_table(table, tmp_path / "wide.parquet", row_group_size=1234)
    view = file_views.parquet_view("wide.parquet", tmp_path / "wide.parquet")
    assert isinstance(view, TableView)
    assert (view.width, len(view.columns), view.total, view.which) == (100, 30, 5000, "of split test")
    assert view.rows == tuple((number,) * 30 for number in range(4990, 4995))


@given(st.integers(0, 40), st.integers(0, 45), st.integers(0, 45), st.integers(1, 9))
def test_rows_are_read_across_groups_as_from_the_whole_table(total: int, start: int, count: int, group: int) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": pa.array(range(total), pa.int64())}), buffer, row_group_size=group)
    with file_views.open_parquet(buffer.getvalue().to_pybytes()) as file:
        rows = file_views.read_rows(file, start, count, ["a"])
    assert rows == [(number,) for number in range(total)][start : start + count]


@settings(max_examples=60)
@given(st.text(), st.sampled_from([".json", ".jsonl", ".csv", ".txt", ".npy", ".parquet", ""]))
def test_a_file_of_any_content_is_shown_or_said_to_be_none(text: str, suffix: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    view = file_views.content_view(f"a{suffix}", content, len(content))
    json.dumps(asdict(view) if view else None, allow_nan=False)


def test_an_array_has_shape_type_and_the_range_of_what_is_finite(folder: Path) -> None:
    session = opened(folder)
    step = show(session, CELL, "odd")["entries"][0]["steps"][0]
    path = Path(step["location"], "e.npy")
    view = file_views.content_view(path.name, path, path.stat().st_size)
    assert isinstance(view, ArrayView)
    assert (view.shape, view.dtype) == ((1, 3), "float16")
    assert (view.low, view.mean, view.high, view.not_finite) == (1.0, 2.0, 3.0, 1)


def test_a_large_file_in_a_folder_shows_the_same_without_being_read_whole(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("answers", "golden", "embedded", "model", "judgments", "odd")
    before = [look(name)["views"] for name in names]
    monkeypatch.setattr(artifact_files, "SMALL", -1)
    monkeypatch.setattr("orchestrator.store.posix.PosixStore.read", None)
    # Labels are looked up in small files only.
    after = json.loads(json.dumps([look(name)["views"] for name in names]).replace('"chosen": null', '"chosen": 0'))
    for views in before:
        for each in views:
            for judgment in each.get("judgments", ()):
                judgment["chosen"] = 0
    assert after == json.loads(json.dumps(before))


def test_of_a_large_file_far_away_the_size_is_said(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(tmp_path).file
    assert (
        drive(
            open_session(file, only=[CELL], outputs=str(tmp_path / "out"), store=s3, entry="measured"), None, True, None
        )
        == 0
    )
    session = opened(tmp_path, store=s3)
    near = show(session, CELL, "answers")["entries"][0]
    assert near["steps"][0]["location"].startswith(f"{s3}/artifacts/exhibit_responses/")
    assert {each["learned"] is None for each in near["views"][0]["prompts"][0]["responses"]} == {False}
    monkeypatch.setattr(artifact_files, "SMALL", 300)
    far = show(session, CELL, "answers")["entries"][0]
    size = far["files"][0]["bytes"]
    (view,) = far["views"]
    assert (view["view"], view["file"]) == ("unshown", "responses.parquet")
    assert view["reason"].startswith(f"has {size:,} bytes; ")


# --- what is not there, or not as it was


def test_of_a_cell_that_was_never_run_the_configs_are_shown(tmp_path: Path) -> None:
    shown = show(opened(tmp_path), CELL)
    assert shown["status"] == "pending"
    assert {entry["state"] for entry in shown["entries"]} == {"pending"}
    assert {(len(entry["files"]), len(entry["views"]), len(entry["metrics"])) for entry in shown["entries"]} == {
        (0, 0, 0)
    }


def test_a_failed_shard_has_its_error_and_the_end_of_its_log(tmp_path: Path) -> None:
    assert drive(opened(tmp_path, "stages.answers.config.fail=true"), None, True, None) == 1
    shown = show(opened(tmp_path, "stages.answers.config.fail=true"), CELL)
    states = {entry["entry"]: (entry["state"], entry["states"]) for entry in shown["entries"]}
    assert states["answers"] == ("partial", {"committed": 1, "failed": 1})
    assert states["measured"][0] == "blocked"
    answers = next(entry for entry in shown["entries"] if entry["entry"] == "answers")
    # What half of the shards counted is no metric of the entry.
    assert answers["metrics"] == {}
    assert answers["views"]
    failed = answers["steps"][1]
    assert (failed["error_class"], failed["attempt"]) == ("ValueError", 1)
    assert "line 39" in failed["log_tail"] or "Traceback" in failed["log_tail"]
    assert len(failed["log_tail"].splitlines()) <= 15
    assert "\x1b" not in failed["log_tail"]


@pytest.mark.faults
@pytest.mark.parametrize("file", ["manifest.json", "responses.parquet"])
def test_a_damaged_artifact_is_said_with_the_remedy_and_left_alone(folder: Path, look: Look, file: str) -> None:
    torn = Path(look("answers")["steps"][0]["location"], file)
    content = torn.read_bytes()
    torn.chmod(0o644)
    try:
        torn.write_bytes(content[:-1] + b"x")
        before = {str(path): path.lstat().st_mtime_ns for path in (folder / "out").rglob("*")}
        entry = next(each for each in look()["entries"] if each["entry"] == "answers")
        assert (entry["state"], entry["states"]) == ("partial", {"damaged": 1, "committed": 1})
        # Nothing is shown of it; where the manifest tells, the next shard takes its place.
        assert (entry["shard"], len(entry["views"])) == ((1, 1) if file == "manifest.json" else (0, 0))
        assert "is damaged" in entry["steps"][0]["damage"]
        assert "verify" in entry["steps"][0]["damage"]
        assert {str(path): path.lstat().st_mtime_ns for path in (folder / "out").rglob("*")} == before
    finally:
        torn.write_bytes(content)


def test_an_entry_with_the_step_of_another_one_leaves_it_to_that_one_to_show_it(tmp_path: Path) -> None:
    same = ["axes.x=[2]", "stages.again={stage: exhibit_model, config: {value: 2}}"]
    session = opened(tmp_path, *same)
    assert drive(session, None, True, None) == 0
    session = opened(tmp_path, *same)
    entries = {each["entry"]: each for each in show(session, CELL)["entries"]}
    first, second = sorted(("model", "again"), key=list(entries).index)
    assert (entries[first]["step_of"], len(entries[first]["views"])) == (None, 2)
    assert (entries[second]["step_of"], entries[second]["views"]) == (first, [])
    assert len(show(session, CELL, second)["entries"][0]["views"]) == 2


def test_an_entry_that_the_cell_does_not_have_is_a_mistake(look: Look) -> None:
    with pytest.raises(SweepError, match="--stage: the cell has no entry 'answer'; did you mean 'answers'"):
        look("answer")
