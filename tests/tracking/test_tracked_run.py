"""A run with MLflow: one run per cell, below groups, never in the way; real MLflow throughout."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy
from servers import free_port, put_mlflow_database
from tracked_sweep import all_runs, check, experiment_at, finished, opened, posted, runs, step_run, table_of

from orchestrator.cli.show_run import run_and_show
from orchestrator.cli.sync import synchronise
from orchestrator.session import Session
from orchestrator.tracking import publisher
from orchestrator.tracking import runs as projection
from orchestrator.tracking.client import TrackingError
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.sync import sync_runs
from workers.history import write_history

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A sweep that was run with MLflow."""
    session, code = finished(tmp_path_factory.mktemp("tracked"))
    assert code == 1
    return session


def test_each_cell_is_one_run_with_coordinates_metrics_and_tags_below_a_group(tracked: Session) -> None:
    uri = tracked.outputs.tracking_uri
    check(uri)
    by_id = {row["cell_id"]: row for row in table_of(tracked).to_pylist()}
    for run in runs(uri):
        tags, row = run.data.tags, by_id[run.data.tags["sweep.cell_id"]]
        assert run.data.params == {axis: str(row[axis]) for axis in ("x", "y", "kind")}
        assert tags["sweep.key"] == row["key"]
        assert tags["sweep.keys"] == f"total={row['key']}"
        assert tags["sweep.status"] == row["status"]
        assert tags["sweep.code_commit"] == tags["mlflow.source.git.commit"] == row["code_commit"]
        assert run.info.run_name == f"x={row['x']},y={row['y']},{row['kind']}"
        if row["kind"] == "plain":
            assert run.data.metrics["total"] == row["total"]
            assert run.info.status == "FINISHED"
        else:
            assert "total" not in run.data.metrics
            assert tags["sweep.error_class"] == "ValueError"
            assert "the toy was told to raise" in tags["sweep.error"]


def test_whatever_used_a_step_is_found_by_its_key_and_no_number_of_a_group_is_a_line_of_one_point(
    tracked: Session,
) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracked.outputs.tracking_uri)
    experiment = client.get_experiment_by_name("toy").experiment_id
    row = next(row for row in table_of(tracked).to_pylist() if row["status"] == "succeeded")
    (found,) = client.search_runs([experiment], f'tags.`sweep.keys` LIKE "%{row["key"]}%"')
    assert found.data.tags["sweep.cell_id"] == row["cell_id"]
    # MLflow draws a line through what has steps, and a bar for what has none. Both sort and search as numbers.
    groups = client.search_runs([experiment], "metrics.total_mean > 0 and tags.`sweep.kind` = 'group'",
                                order_by=["metrics.total_mean DESC"])  # fmt: skip
    assert [run.info.run_name for run in groups] == ["x=3", "x=2", "x=1"]
    for run in groups:
        points = [client.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
        assert {point.step for each in points for point in each} == {0}


def test_groups_have_means_and_the_sweep_has_summary_data_and_table(tracked: Session) -> None:
    import mlflow

    session = tracked
    uri = session.outputs.tracking_uri
    client = mlflow.MlflowClient(uri)
    page = client.get_experiment_by_name("toy").tags["mlflow.note.content"]
    assert "Does adding work?" in page
    rows = [row for row in table_of(session).to_pylist() if row["status"] == "succeeded"]
    for group in runs(uri, "group"):
        values = [row["total"] for row in rows if f"x={row['x']}" == group.info.run_name]
        assert group.data.metrics["total_mean"] == sum(values) / len(values) == sum(values) / 2
        assert (group.data.metrics["cells"], group.data.metrics["cells_failed"]) == (4, 2)
    (whole,) = runs(uri, "sweep")
    assert whole.data.metrics["cells_succeeded"] == 6
    assert "| 10 | plain | 3 | 20.000 ± 4.000 |" in whole.data.tags["mlflow.note.content"]
    (data,) = client.get_run(whole.info.run_id).inputs.dataset_inputs
    assert data.dataset.name == "data.txt"
    assert session.spec.data["sha256"].startswith(data.dataset.digest)
    kept = {each.path for each in client.list_artifacts(whole.info.run_id)}
    assert kept == {"results.parquet", "toy.yaml"}
    folder = Path(client.download_artifacts(whole.info.run_id, "results.parquet"))
    assert pq.read_table(folder).equals(table_of(session))


def test_no_parent_in_mlflow_has_more_children_than_the_limit(
    untracked: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "CHILDREN_PER_PARENT", 3)
    outbox, uri = Outbox(tmp_path / "outbox"), put_mlflow_database(tmp_path / "mlflow.db")
    posted(untracked, outbox, table_of(untracked))
    sync_runs(outbox, experiment_at(untracked, uri))
    found = all_runs(uri)
    assert len(runs(uri)) == 12
    # Four groups of three would be one too many for the sweep, so there are two levels.
    children = Counter(run.data.tags["mlflow.parentRunId"] for run in found if "mlflow.parentRunId" in run.data.tags)
    assert sorted(children.values()) == [1, 2, 3, 3, 3, 3, 3]


def test_without_an_answer_from_mlflow_the_sweep_goes_on_and_sync_catches_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    session, code = finished(tmp_path, uri)
    assert code == 1  # for the failing cells, not for MLflow
    assert table_of(session).num_rows == 12
    printed = capsys.readouterr().out
    assert f"the MLflow server {uri} does not answer" in printed
    assert "12 of 12 runs wait in" in printed
    assert "sync" in printed
    with pytest.raises(TrackingError, match="sweep sync"):
        sync_runs(Outbox(session.outputs.outbox), experiment_at(session, uri))
    # What waits for one MLflow is there for any other.
    assert synchronise(session, table_of(session), None)
    check(session.outputs.tracking_uri)


def test_a_run_ends_with_what_mlflow_refuses_and_the_next_one_tries_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = opened(tmp_path, "axes.kind={plain: {behaviour: work}}")
    put_mlflow_database(tmp_path / "out" / "mlflow.db")
    point = ("loss", 0, 0.5)
    Outbox(session.outputs.outbox).post([replace(step_run(0), name="the bad one", curve=(point, point))])
    for _ in range(2):
        assert run_and_show(opened(tmp_path, "axes.kind={plain: {behaviour: work}}"), None, True, None) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "refuses the bad one: (sqlite3.IntegrityError)" in printed
        assert "1 of 7 runs wait in" in printed
        assert len(runs(session.outputs.tracking_uri)) == 6


def test_the_curves_of_committed_steps_are_posted_once_whatever_they_were_committed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = toy.double

    def with_curve(config: toy.TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
        metrics = double(config, out, number=number)
        write_history([{"step": 10, "loss": metrics["total"]}, {"step": 20, "loss": 0.5}], out)
        return metrics

    monkeypatch.setattr(toy, "double", with_curve)
    monkeypatch.setitem(toy.STAGES, "toy_double", replace(toy.STAGES["toy_double"], history=True))
    overrides = ("tracking=false", "axes.kind={plain: {behaviour: work}}")
    assert run_and_show(opened(tmp_path, *overrides), None, True, None) == 0
    session, outbox = opened(tmp_path, *overrides), Outbox(tmp_path / "outbox")
    # Three values of x in two shards each, and six cells.
    assert posted(session, outbox, table_of(session)) == 6 + 6
    outbox.post([], table="something else")
    assert posted(session, outbox, table_of(session)) == 0
    _, waiting = Outbox(outbox.folder).follow()
    steps = {id_: run for id_, run in waiting.items() if run and run.tags["sweep.kind"] == "step"}
    doubles = [number for number in range(len(session.plan)) if session.plan.entry_of(number) == "double"]
    assert steps.keys() == {f"step:{session.plan.keys[number]}" for number in doubles}
    first = steps[f"step:{session.plan.keys[doubles[0]]}"]
    assert (first.name, first.group, first.params) == ("double x=1", ("training double",), {"x": "1"})
    assert first.curve == (("loss", 10, 2.0), ("loss", 20, 0.5))
    assert first.ended - first.started == pytest.approx(first.metrics["seconds"], abs=1e-3)


def test_a_run_is_followed_while_it_goes_on_and_a_finished_one_is_sent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_WRITER_AFTER", 0.0)
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 0.0)
    uri = put_mlflow_database(tmp_path / "out" / "mlflow.db")
    publish = publisher.Publisher.publish
    shown: list[set[str]] = []

    def wait_once(self: publisher.Publisher) -> None:
        """The run is held up at its first finished cells, until MLflow shows them."""
        publish(self)
        known, until = self.outbox.sent(f"{uri} toy"), time.monotonic() + 400
        while self.outbox.digests and not shown and time.monotonic() < until:
            known.follow()
            if self.outbox.digests.keys() <= known.runs.keys():
                shown.append(set(self.outbox.digests))
            time.sleep(0.05)

    monkeypatch.setattr(publisher.Publisher, "publish", wait_once)
    overrides = ("axes.kind={plain: {behaviour: work}}",)
    assert run_and_show(opened(tmp_path, *overrides), None, True, None) == 0
    assert 1 <= len(shown[0]) < 6
    assert len(runs(uri)) == 6
    # Whoever starts a process now fails.
    monkeypatch.setattr(subprocess, "Popen", None)
    assert run_and_show(opened(tmp_path, *overrides), None, True, None) == 0
