"""Garbage is what no named sweep reaches and no pin names; the sweeps that were named notice nothing of its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import toy_sweep
from command_server import sweep
from holders import dead_pid, hold
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import environment

from orchestrator.attempt.checkpoints import STAGE, StepCheckpoints, checkpoint_address
from orchestrator.attempt.request import Request
from orchestrator.cli.show_run import run_and_show
from orchestrator.maintenance.gc import collect, divide, reach, survey
from orchestrator.maintenance.pins import list_pins, pin, unpin
from orchestrator.results.parquet import read_results
from orchestrator.session import Session, open_session
from orchestrator.store import Store, StoreError, list_files
from orchestrator.sweep.problems import SweepError
from orchestrator.types import Artifact, Manifest, Runtime

ONE = toy_sweep.SWEEP.replace("name: toy", "name: one").replace("[1, 2, 3]", "[1, 2]")
#: Shares the steps of x=2 with the first.
OTHER = toy_sweep.SWEEP.replace("name: toy", "name: other").replace("[1, 2, 3]", "[2, 4]")


#: `tests/store` proves that both stores keep one contract; so here the tests of objects are long, but for one.
@pytest.fixture(params=["posix", pytest.param("objects", marks=[pytest.mark.s3, pytest.mark.long])])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "posix" else str(request.getfixturevalue("s3"))


def open_one(folder: Path, outputs: str, text: str) -> Session:
    name = text.splitlines()[0].removeprefix("name: ")
    return open_session(toy_sweep.write_sweep(folder, text, f"{name}.yaml"), outputs=outputs)


def run(folder: Path, outputs: str, text: str) -> Session:
    session = open_one(folder, outputs, text)
    assert run_and_show(session, None, True, None) == 0
    return session


def has_nothing_to_do(folder: Path, outputs: str, text: str, capsys: pytest.CaptureFixture[str]) -> bool:
    capsys.readouterr()
    run(folder, outputs, text)
    return "nothing to do" in capsys.readouterr().out


def steps(session: Session) -> set[Artifact]:
    return reach([session.plan])


def there(store: Store) -> set[Artifact]:
    return store.committed(store.stages())


def everything(outputs: str) -> dict[str, bytes]:
    """All files with their bytes, links with their targets."""
    files, root = fsspec.core.url_to_fs(outputs, use_listings_cache=False)
    found = {path: files.cat_file(path) for path in files.find(root) if not Path(path).is_symlink()}
    links = Path(root).rglob("*") if "://" not in outputs else []
    return found | {str(path): str(path.readlink()).encode() for path in links if path.is_symlink()}


def test_checkpoints_of_steps_that_are_not_committed_are_kept_and_others_go(tmp_path: Path, outputs: str) -> None:
    session = open_one(tmp_path, outputs, ONE)
    steps = [session.plan.step(number) for number in range(2)]
    session.store.prepare()
    for step in (*steps, replace(steps[0], address=Artifact("toy_source", "f" * 32))):
        request = Request(step, 1, Runtime(), session.store.location, "abc", "driver")
        StepCheckpoints(request, session.store).keep("a", lambda folder: (folder / "file.txt").touch())
    session.store.remove([steps[1].address])
    with session.store.lease(steps[1].address, "driver") as lease:
        lease.commit(Manifest(steps[1].address, "{}", {}, {}, 1, 0.0, 0.0, "host", "abc"))
    collect([session], [], delete_it=True)
    assert session.store.committed([STAGE]) == {checkpoint_address(steps[0].address, "a")}


artifacts = st.frozensets(st.builds(Artifact, st.sampled_from(["a", "b"]), st.sampled_from("123456")))


@given(artifacts, artifacts, artifacts, artifacts)
def test_every_artifact_is_kept_or_doomed_and_what_is_reached_or_pinned_is_kept(
    committed: frozenset[Artifact],
    reachable: frozenset[Artifact],
    pinned: frozenset[Artifact],
    dropped: frozenset[Artifact],
) -> None:
    found = divide(committed, reachable, pinned, dropped)
    assert found.kept | found.doomed == committed
    assert not found.kept & found.doomed
    assert found.kept >= committed & pinned
    assert found.kept >= committed & (reachable - dropped)
    assert found.doomed >= committed & (dropped - pinned)
    assert divide(committed, reachable, pinned, frozenset()).kept == committed & (reachable | pinned)


@given(
    artifacts, artifacts, artifacts, st.dictionaries(*[st.builds(Artifact, st.just("a"), st.sampled_from("123"))] * 2)
)
def test_what_is_kept_keeps_all_that_it_refers_to_and_nothing_else(
    committed: frozenset[Artifact],
    reachable: frozenset[Artifact],
    dropped: frozenset[Artifact],
    references: dict[Artifact, Artifact],
) -> None:
    kept = divide(committed, reachable, frozenset(), dropped, references).kept
    named = {references[each] for each in kept & references.keys()}
    assert kept >= named & committed
    assert kept <= (committed & (reachable - dropped)) | named


def test_what_all_sweeps_reach_together_is_kept(
    tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = run(tmp_path, outputs, ONE), run(tmp_path, outputs, OTHER)
    before = everything(outputs)
    report = collect([one, other], [], True)
    assert everything(outputs) == before
    assert {row["delete"] for row in report["stages"].values()} == {0}
    assert {stage: row["kept"] for stage, row in report["stages"].items()} == {
        "toy_source": 6, "toy_double": 6, "toy_total": 6,
    }  # fmt: skip
    # "1.0" and the like: three or four bytes each.
    assert report["stages"]["toy_source"]["kept_bytes"] == 6 * 3


@pytest.mark.parametrize("outputs", ["posix", pytest.param("objects", marks=pytest.mark.s3)], indirect=True)
def test_what_only_an_unnamed_sweep_has_is_deleted_and_nothing_else(
    tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = run(tmp_path, outputs, ONE), run(tmp_path, outputs, OTHER)
    table = read_results(one.outputs.folder)
    read: list[tuple[int, int]] = []
    deleted: list[tuple[int, int]] = []
    report = collect([one], [], True, lambda *each: read.append(each), lambda *each: deleted.append(each))
    assert (read[-1], deleted[-1]) == ((18, 18), (6, 6))
    assert there(one.store) == steps(one)
    assert sum(row["delete"] for row in report["stages"].values()) == len(steps(other) - steps(one)) == 6
    assert has_nothing_to_do(tmp_path, outputs, ONE, capsys)
    assert read_results(one.outputs.folder).equals(table)
    # The other sweep makes again what it lost.
    assert not has_nothing_to_do(tmp_path, outputs, OTHER, capsys)
    assert there(one.store) == steps(one) | steps(other)


def test_a_dry_run_changes_not_a_byte(tmp_path: Path, outputs: str) -> None:
    one, _ = run(tmp_path, outputs, ONE), run(tmp_path, outputs, OTHER)
    hold(one.store, Artifact("toy_source", "f" * 32))
    before = everything(outputs)
    report = collect([one], ["double"], False)
    assert sum(row["delete"] for row in report["stages"].values()) == 6 + 4
    assert everything(outputs) == before


def test_records_of_steps_that_no_sweep_has_and_what_was_set_aside_are_deleted(tmp_path: Path, outputs: str) -> None:
    loud = ONE.replace("behaviour: work", "behaviour: print")
    one = run(tmp_path, outputs, loud)
    failing = open_one(tmp_path, outputs, OTHER.replace("{behaviour: work}", "{behaviour: raise}"))
    assert run_and_show(failing, None, True, None) == 1
    victim = one.plan.address(0)
    one.store._set_aside(victim)
    remains = one.store.remains()
    assert remains
    gone = one.store.tried(["toy_total"]) - steps(one)
    assert len(gone) == 4
    report = collect([one], [], True)
    assert (report["records"], report["remains"]) == (4, len(remains))
    assert report["remains_bytes"] > 0
    assert not one.store.remains()
    # What was printed by steps that stay is still there, and their manifests name it.
    assert one.store.tried(["toy_total"]) == {step for step in steps(one) if step.stage == "toy_total"}
    assert collect([one], [], True)["remains"] == 0


def test_a_dropped_entry_goes_as_far_as_no_unfinished_step_reads_it(
    tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run(tmp_path, outputs, ONE)
    metrics = read_results(one.outputs.folder).select(["cell_id", "status", "total", "key"])
    # This one has an unfinished cell, y=30, which reads the doubles of x=2.
    unfinished = open_one(tmp_path, outputs, OTHER.replace("[2, 4]", "[2]").replace("[10, 20]", "[10, 30]"))
    collect([one, unfinished], ["double"], True)
    left = {step for step in there(one.store) if step.stage == "toy_double"}
    assert left == {step for step in steps(unfinished) if step.stage == "toy_double"}
    assert has_nothing_to_do(tmp_path, outputs, ONE, capsys)
    assert read_results(one.outputs.folder).select(metrics.column_names).equals(metrics)
    # Sources lie above what is finished now, whether or not their readers are still there.
    collect([open_one(tmp_path, outputs, ONE)], ["double"], True)
    collect([open_one(tmp_path, outputs, ONE)], ["source"], True)
    assert {step.stage for step in there(one.store)} == {"toy_total"}
    assert has_nothing_to_do(tmp_path, outputs, ONE, capsys)
    assert read_results(one.outputs.folder).select(metrics.column_names).equals(metrics)


def test_inputs_of_a_damaged_target_are_not_dropped(tmp_path: Path) -> None:
    outputs = str(tmp_path / "out")
    one = run(tmp_path, outputs, ONE)
    target = one.plan.number(next(step for step in steps(one) if step.stage == "toy_total"))
    assert target is not None
    place = tmp_path / "out" / "store" / "artifacts" / "toy_total" / one.plan.keys[target]
    (place / "manifest.json").write_text("{")
    collect([one], ["double"], True)
    left = {step for step in there(one.store) if step.stage == "toy_double"}
    assert left == {one.plan.address(parent) for parent in one.plan.parents(target)}
    before = len((tmp_path / "toy-trace").read_text().splitlines())
    run(tmp_path, outputs, ONE)
    assert len((tmp_path / "toy-trace").read_text().splitlines()) == before + 1


def test_targets_reported_entries_and_unknown_ones_are_never_dropped(tmp_path: Path) -> None:
    outputs = str(tmp_path / "out")
    one = run(tmp_path, outputs, ONE)
    reporting = open_one(tmp_path, outputs, ONE.replace("results: [total]", "results: [double]"))
    for session, name, words in (
        (one, "total", "total: is a target, .*never dropped"),
        (reporting, "double", "double: is a target, .*choose from source"),
        (one, "doubel", "did you mean 'double'"),
    ):
        with pytest.raises(SweepError, match=words):
            collect([session], [name], True)
    assert there(one.store) == steps(one)
    # Where another sweep reports it, this one may drop what is its own.
    collect([one, reporting], ["double"], True)
    assert there(one.store) == steps(one)


def test_what_is_pinned_is_never_deleted(tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = run(tmp_path, outputs, ONE), run(tmp_path, outputs, OTHER)
    assert pin(other, None)["artifacts"] == 12
    collect([one], ["double"], True)
    assert there(one.store) == (steps(one) - {s for s in steps(one) if s.stage == "toy_double"}) | steps(other)
    assert has_nothing_to_do(tmp_path, outputs, OTHER, capsys)
    assert list_pins(one.store) == {"other": {"artifacts": 12, "there": 12}}
    unpin(one.store, "other")
    collect([one], [], True)
    assert there(one.store) <= steps(one)
    with pytest.raises(SweepError, match="no such pin"):
        unpin(one.store, "other")


def test_a_pin_grows_and_is_never_silently_replaced_by_something_else(tmp_path: Path) -> None:
    outputs = str(tmp_path / "out")
    one = open_one(tmp_path, outputs, ONE)
    with pytest.raises(SweepError, match="none of its steps is committed"):
        pin(one, None)
    other = run(tmp_path, outputs, OTHER)
    assert pin(open_one(tmp_path, outputs, ONE), "paper")["artifacts"] == 6
    one = run(tmp_path, outputs, ONE)
    assert pin(one, "paper")["artifacts"] == 12
    with pytest.raises(SweepError, match="sweep unpin paper"):
        pin(other, "paper")
    with pytest.raises(SweepError, match="letters"):
        pin(other, "../paper")
    with pytest.raises(SweepError, match="letters"):
        unpin(other.store, "../pins/paper")
    assert one.store.pins() == {"paper": steps(one)}


def test_a_pin_that_cannot_be_read_stops_everything(tmp_path: Path) -> None:
    outputs = str(tmp_path / "out")
    one, other = run(tmp_path, outputs, ONE), run(tmp_path, outputs, OTHER)
    pin(other, None)
    (tmp_path / "out" / "store" / "pins" / "other").write_text("{")
    with pytest.raises(StoreError, match="sweep unpin other"):
        collect([one], [], True)
    assert there(one.store) == steps(one) | steps(other)


def test_nothing_is_deleted_while_a_driver_runs(tmp_path: Path, outputs: str) -> None:
    one, other = run(tmp_path, outputs, ONE), run(tmp_path, outputs, OTHER)
    free = Artifact("toy_source", "f" * 32)
    claim = hold(one.store, free, host="another-host", space="elsewhere", pid=12)
    with pytest.raises(StoreError, match=r"process 12 on another-host works on toy_source/f+: .* or delete .*claims"):
        collect([one], [], True)
    one.store.end_claim(free, claim.driver)
    # A living process of this machine; then one that is gone.
    claim = hold(one.store, free)
    with pytest.raises(StoreError, match="a driver is running"):
        collect([one], [], True)
    one.store.end_claim(free, claim.driver)
    # Between two steps a driver holds no claim, but it has a pulse.
    pulse = other.outputs.folder / "running.json"
    pulse.write_text(json.dumps({"time": time.time()}))
    with pytest.raises(StoreError, match="a driver of the sweep 'other' is running"):
        collect([one], [], True)
    pulse.write_text(json.dumps({"time": time.time() - 60}))
    assert there(one.store) == steps(one) | steps(other)
    hold(one.store, free, pid=dead_pid())
    collect([one], [], True)
    assert there(one.store) == steps(one)
    assert one.store.claims() == {}


def test_sweeps_of_different_stores_are_refused(tmp_path: Path) -> None:
    one = run(tmp_path, str(tmp_path / "out"), ONE)
    other = run(tmp_path, str(tmp_path / "elsewhere"), OTHER)
    with pytest.raises(SweepError, match="sweeps of one store"):
        collect([one, other], [], True)


def test_a_damaged_manifest_is_garbage_only_where_nothing_reaches_it(tmp_path: Path) -> None:
    outputs = str(tmp_path / "out")
    one, other = run(tmp_path, outputs, ONE), run(tmp_path, outputs, OTHER)
    (mine,) = sorted(steps(one) - steps(other))[:1]
    (theirs,) = sorted(steps(other) - steps(one))[:1]
    for stage, key in (mine, theirs):
        (tmp_path / "out" / "store" / "artifacts" / stage / key / "manifest.json").write_text("{")
    found = survey([one.plan], one.store, [])
    assert mine in found.division.kept
    assert theirs in found.division.doomed
    assert found.sizes[mine] == found.sizes[theirs] == 0


@pytest.mark.faults
def test_whatever_is_left_of_a_killed_collection_is_whole_and_the_same_command_goes_on(
    tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run(tmp_path, outputs, ONE)
    garbage = {Artifact("old_stage", f"{number:032x}") for number in range(100 if "://" in outputs else 300)}

    def publish(address: Artifact) -> None:
        with one.store.lease(address, "driver") as lease:
            (lease.folder / "file.txt").write_text("a few bytes")
            files = list_files(lease.folder)
            lease.commit(Manifest(address, "{}", files, {"m": 1.0}, 1, 0.5, 100.0, "host", "abc"))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(publish, garbage))
    code = "import toy; from orchestrator.cli import main; main()"
    arguments = ["gc", str(one.file), "--delete", "--outputs", outputs]
    collector = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment())
    while there(one.store) >= garbage:
        assert collector.poll() is None
        time.sleep(0.002)
    collector.kill()
    assert collector.wait() == -signal.SIGKILL
    left = there(one.store) & garbage
    for address, manifest in one.store.manifests(left).items():
        assert isinstance(manifest, Manifest), address
        assert one.store.inspect(manifest) is None
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment())
    assert done.returncode == 0
    assert there(one.store) == steps(one)
    assert not [path for path in everything(outputs) if "old_stage" in path]
    assert has_nothing_to_do(tmp_path, outputs, ONE, capsys)


def test_the_command_says_what_would_go_and_how_and_then_does_it(tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path, ONE, "one.yaml")
    toy_sweep.write_sweep(tmp_path, OTHER, "other.yaml")
    for name in ("one.yaml", "other.yaml"):
        assert sweep(tmp_path, "run", name, "--inline").returncode == 0
    said = sweep(tmp_path, "gc", "one.yaml", "--drop", "double").stdout
    assert "nothing was deleted (dry run)" in said
    command = said.split("to delete it: ")[1].splitlines()[0]
    assert command == "sweep gc one.yaml --drop double --delete"
    assert sweep(tmp_path, "gc", "one.yaml", "other.yaml").stdout.splitlines()[-1] == "nothing to delete"
    assert sweep(tmp_path, "gc", "one.yaml", "-s", "axes.x=[1,2,4]").stdout.splitlines()[-1] == "nothing to delete"
    assert "sweep gc one.yaml --delete -s 'axes.x=[2]'" in sweep(tmp_path, "gc", "one.yaml", "-s", "axes.x=[2]").stdout
    pinned = sweep(tmp_path, "pin", "other.yaml", "--name", "paper")
    assert "12 artifacts are pinned as paper" in pinned.stdout, pinned.stderr
    assert "paper" in sweep(tmp_path, "pin", "--list").stdout
    assert json.loads(sweep(tmp_path, "pin", "--list", "--json").stdout) == {"paper": {"artifacts": 12, "there": 12}}
    assert sweep(tmp_path, "gc", "one.yaml").stdout.splitlines()[-1] == "nothing to delete"
    assert sweep(tmp_path, "unpin", "paper").returncode == 0
    done = sweep(tmp_path, *command.split()[1:])
    assert "10 artifacts were deleted" in done.stdout, done.stderr
    report = json.loads(sweep(tmp_path, "gc", "one.yaml", "--json").stdout)
    assert report["deleted"] is False
    assert report["stages"]["toy_total"] == {"kept": 4, "kept_bytes": 16, "delete": 0, "delete_bytes": 0}
    assert "nothing to do" in sweep(tmp_path, "run", "one.yaml", "--inline").stdout
    assert sweep(tmp_path, "gc", "one.yaml", "--drop", "total").returncode == 2
