"""Where results go: what was chosen, else what was written, else the environment, else a sensible place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweep.outputs import resolve_outputs
from orchestrator.sweep.problems import SweepError


def test_the_choice_beats_the_file_which_beats_the_environment_which_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_outputs("s", None, None, None).root == tmp_path / "outputs"
    monkeypatch.setenv("SWEEP_OUTPUTS", "/from/environment")
    assert resolve_outputs("s", None, None, None).root == Path("/from/environment")
    assert resolve_outputs("s", "/from/file", None, None).root == Path("/from/file")
    outputs = resolve_outputs("s", "/from/file", "here", None)
    assert outputs.root == tmp_path / "here"
    assert outputs.results == tmp_path / "here" / "sweeps" / "s" / "results.parquet"
    assert outputs.store == str(tmp_path / "here" / "store")
    assert outputs.tracking_uri == f"sqlite:///{tmp_path / 'here' / 'mlflow.db'}"
    assert resolve_outputs("s", None, "here", "/big/disk").store == "/big/disk"


def test_in_a_ray_job_the_default_is_in_the_home_folder_and_a_relative_root_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_outputs("s", None, None, None).root == tmp_path / "sweep-outputs"
    assert resolve_outputs("s", "/shared/disk", None, None).root == Path("/shared/disk")
    for written, chosen in (("relative", None), (None, "relative")):
        with pytest.raises(SweepError, match="thrown away"):
            resolve_outputs("s", written, chosen, None)
    with pytest.raises(SweepError, match=r"--store.*thrown away"):
        resolve_outputs("s", "s3://bucket/x", None, "relative")


def test_in_an_object_store_all_but_databases_and_locks_lies_there_also_for_a_ray_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    outputs = resolve_outputs("s", "s3://bucket/x/", None, None)
    assert str(outputs.root) == "s3://bucket/x"
    assert outputs.store == "s3://bucket/x/store"
    assert str(outputs.results) == "s3://bucket/x/sweeps/s/results.parquet"
    assert outputs.tracking_uri == f"sqlite:///{tmp_path / 'sweep-outputs' / 'mlflow.db'}"
    assert outputs.outbox == tmp_path / "sweep-outputs" / "sweeps" / "s" / "outbox"
    monkeypatch.setenv("SWEEP_OUTPUTS", "s3://bucket/y")
    assert resolve_outputs("s", None, None, None).store == "s3://bucket/y/store"


def test_a_place_of_a_kind_that_connects_at_once_and_cannot_is_a_mistake() -> None:
    with pytest.raises(SweepError, match="cannot be reached"):
        resolve_outputs("toy", None, "ftp://127.0.0.1:9/results", None)
