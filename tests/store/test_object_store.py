"""A whole sweep in an object store: the same numbers as in a folder, and resumable from any machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import s3fs
import toy_sweep
from command_server import sweep
from store_samples import ADDRESS, commit

from orchestrator.results.parquet import read_results
from orchestrator.store import open_store

METRICS = ["cell_id", "x", "y", "kind", "status", "total", "key"]


def test_a_sweep_in_an_object_store_ends_like_one_in_a_folder_and_has_nothing_to_do_afterwards(
    s3: str, tmp_path: Path
) -> None:
    toy_sweep.write_sweep(tmp_path)
    here = sweep(tmp_path, "run", "toy.yaml", "--inline")
    assert here.returncode == 0, here.stderr
    there = sweep(tmp_path, "run", "toy.yaml", "--inline", "--outputs", s3)
    assert there.returncode == 0, there.stderr
    assert f"outputs: {s3} (from --outputs)" in there.stdout
    table = read_results(f"{s3}/sweeps/toy")
    assert table.select(METRICS).equals(read_results(tmp_path / "outputs" / "sweeps" / "toy").select(METRICS))
    # Another machine: nothing is cached, and the table is gone.
    shutil.rmtree(tmp_path / "cache")
    s3fs.S3FileSystem().rm(f"{s3}/sweeps", recursive=True)
    again = sweep(tmp_path, "run", "toy.yaml", "--inline", "--outputs", s3)
    assert "nothing to do" in again.stdout
    assert read_results(f"{s3}/sweeps/toy/results.parquet").equals(table)


def test_steps_missing_from_an_object_store_are_made_again_from_what_is_there(s3: str, tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path)
    assert sweep(tmp_path, "run", "toy.yaml", "--inline", "--outputs", s3).returncode == 0
    before = read_results(f"{s3}/sweeps/toy")
    files = s3fs.S3FileSystem()
    manifests = files.ls(f"{s3}/store/manifests/toy_total")
    files.rm(manifests[:2])
    plan = json.loads(sweep(tmp_path, "plan", "toy.yaml", "--json", "--outputs", s3).stdout)
    assert {name: counts["to_run"] for name, counts in plan["steps"].items()} == {"source": 0, "double": 0, "total": 2}
    assert sweep(tmp_path, "run", "toy.yaml", "--inline", "--outputs", s3).returncode == 0
    assert read_results(f"{s3}/sweeps/toy").select(METRICS).equals(before.select(METRICS))


def test_a_failed_step_names_a_log_in_the_object_store(s3: str, tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP.replace("{behaviour: work}", "{behaviour: raise}"))
    done = sweep(tmp_path, "run", "toy.yaml", "--inline", "--outputs", s3)
    assert done.returncode == 1
    (log, *_) = read_results(f"{s3}/sweeps/toy")["log"].to_pylist()
    assert log.startswith(s3)
    assert "Traceback" in s3fs.S3FileSystem().cat_file(log).decode()


def test_ray_workers_read_and_write_the_object_store(s3: str, tmp_path: Path, local_ray: None) -> None:
    from orchestrator.drive import drive
    from orchestrator.session import open_session

    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=s3)
    assert drive(session, None, False, None) == 0
    assert read_results(f"{s3}/sweeps/toy").num_rows == 6


def test_an_object_store_needs_its_package_and_says_which(tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path)
    done = sweep(tmp_path, "plan", "toy.yaml", "--outputs", "gs://bucket/folder")
    assert done.returncode == 2
    assert "--outputs: 'gs://bucket/folder' cannot be opened" in done.stderr
    assert "gcsfs" in done.stderr


def test_an_object_store_that_is_not_there_is_told_before_anything_runs(s3: str, tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path)
    done = sweep(tmp_path, "run", "toy.yaml", "--inline", "--outputs", "s3://no-such-bucket/folder")
    assert done.returncode == 2
    assert "the store s3://no-such-bucket/folder/store cannot be reached or written" in done.stderr
    assert "Traceback" not in done.stderr


def test_objects_that_stand_for_folders_are_nothing(s3: str) -> None:
    # The pages of S3 make one for a folder that somebody adds, and SeaweedFS has one for what was deleted.
    store = open_store(f"{s3}/store")
    bucket, _, folder = s3.removeprefix("s3://").partition("/")
    for each in ("manifests/toy_source", "damaged", "artifacts", "artifacts/toy_source"):
        s3fs.S3FileSystem().call_s3("put_object", Bucket=bucket, Key=f"{folder}/store/{each}/")
    assert store.committed(["toy_source"]) == set()
    commit(store)
    assert store.committed(["toy_source"]) == {ADDRESS}
    assert store.remains() == {}
