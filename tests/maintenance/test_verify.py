"""`sweep verify`: a flipped bit is found, and so is a stage that does not repeat itself."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import toy
import toy_sweep
from command_server import sweep
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestrator.attempt.rerun import Verdict, sample
from orchestrator.cli.app import app
from orchestrator.drive import drive
from orchestrator.maintenance.verify import Findings, verify
from orchestrator.session import Session, open_session

_COUNT = itertools.count(1)


#: `tests/store` proves that both stores keep one contract; so here the tests of objects are long, but for one.
@pytest.fixture(params=["posix", pytest.param("objects", marks=[pytest.mark.s3, pytest.mark.long])])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    """A sweep that was run."""
    outputs = str(tmp_path / "out") if request.param == "posix" else str(request.getfixturevalue("s3"))
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=outputs)
    assert drive(session, None, True, None) == 0
    return again(session)


def again(session: Session, *overrides: str, only: str | None = None) -> Session:
    """The sweep, opened anew."""
    return open_session(
        session.file, list(overrides), [only] if only else None, None, outputs=str(session.outputs.root)
    )


def check(
    session: Session, reruns: int = 5, checksums: bool = True, tolerance: float = 0, discard: bool = False
) -> Findings:
    return verify(session, reruns, 0, checksums, tolerance, discard)


def file_of(session: Session, number: int) -> tuple[fsspec.AbstractFileSystem, str]:
    files, root = fsspec.core.url_to_fs(session.store.location, use_listings_cache=False)
    stage, key = session.plan.address(number)
    (path,) = (each for each in files.find(f"{root}/artifacts/{stage}/{key}") if each.endswith("number.txt"))
    return files, path


def flip(session: Session, number: int) -> None:
    files, path = file_of(session, number)
    text = bytearray(files.cat_file(path))
    text[0] ^= 1
    before = Path(path).stat() if Path(path).exists() else None
    if before:
        Path(path).chmod(0o644)
    files.pipe_file(path, bytes(text))
    if before:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_clean_sweep_is_fine_and_nothing_is_changed_or_left_behind(session: Session) -> None:
    before = session.store.committed(session.plan.stages)
    findings = check(session, reruns=18)
    assert findings.fine
    assert (findings.committed, findings.checked, findings.damaged) == (18, 18, {})
    assert [each.verdict for each in findings.reruns] == [Verdict.IDENTICAL] * 18
    assert {each.entry for each in findings.reruns} == {"source", "double", "total"}
    assert session.store.committed(session.plan.stages) == before
    assert session.store.tried(session.plan.stages) == set()
    assert session.store.claims() == {}


def test_who_wants_to_show_progress_is_told_what_was_read_and_which_step_runs_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=str(tmp_path / "out"))
    assert drive(session, None, True, None) == 0
    capfd.readouterr()
    read: list[tuple[int, int]] = []
    started: list[tuple[int, int, str]] = []
    findings = verify(
        again(session), 4, 0, True, 0, False,
        lambda done, total: read.append((done, total)),
        lambda position, count, step, manifest: started.append((position, count, step.key)),
    )  # fmt: skip
    assert read[-1] == (18, 18)
    assert started == [(position, 4, each.key) for position, each in enumerate(findings.reruns, start=1)]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("session", ["posix", pytest.param("objects", marks=pytest.mark.s3)], indirect=True)
def test_a_flipped_bit_is_found_and_set_aside_only_if_asked_for(session: Session) -> None:
    (victim,) = (number for number in range(18) if session.plan.coords(number) == {"x": 2, "y": 20, "kind": "plain"})
    flip(session, victim)
    findings = check(session)
    assert not findings.fine
    assert list(findings.damaged) == [victim]
    assert "differ from its manifest" in findings.damaged[victim]
    assert check(again(session), discard=True).discarded
    assert np.flatnonzero(again(session).schedule.needed).tolist() == [victim]
    assert drive(again(session), None, True, None) == 0
    assert check(again(session)).fine


def test_damage_is_found_in_manifests_and_in_what_is_read_again(session: Session) -> None:
    stage, key = session.plan.address(0)
    files, root = fsspec.core.url_to_fs(session.store.location, use_listings_cache=False)
    (manifest,) = (path for path in files.find(root) if key in path and path.endswith(".json"))
    files.pipe_file(manifest, b"{")
    findings = check(session, reruns=0)
    assert list(findings.damaged) == [0]
    assert stage == "toy_source"
    assert "altered or torn" in findings.damaged[0]
    # Without the checksums a step that is run again still tells; one whose input is damaged is not run again.
    findings = check(again(session), reruns=18, checksums=False)
    assert findings.checked == 0
    assert list(findings.damaged) == [0]


def test_steps_are_not_run_again_on_damaged_inputs(session: Session) -> None:
    victim = 0
    flip(session, victim)
    findings = check(session, reruns=18)
    below = [number for number in range(18) if victim in session.plan.parents(number)]
    keys = {each.key for each in findings.reruns}
    assert below
    assert keys == {session.plan.keys[number] for number in range(18) if number not in (victim, *below)}


def test_only_the_chosen_cells_are_looked_at(session: Session) -> None:
    findings = check(again(session, only="x=1"), reruns=0)
    assert findings.checked == 2 + 2 + 2


def restless(config: toy.TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
    """Other bytes on every call."""
    (out / "number.txt").write_text(f"{2 * float((number / 'number.txt').read_text())}")
    (out / "noise.txt").write_text(str(next(_COUNT)))
    return {"total": 1.0}


def drifting(config: toy.TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
    """Another metric on every call, by a millionth."""
    return {"total": 1.0 + 1e-6 * next(_COUNT)}


def forgetful(config: toy.TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
    """Works once per process."""
    if next(_CALLS) > 6:
        raise OSError("the service is gone")
    print("a word that belongs into no report")
    return {"total": 1.0}


_CALLS = itertools.count(1)


@pytest.fixture
def with_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Session]:
    """Runs the sweep with another function behind `toy_double`."""

    def run(function: str) -> Session:
        stage = replace(toy.STAGES["toy_double"], function=f"test_verify:{function}")
        monkeypatch.setitem(toy.STAGES, "toy_double", stage)
        text = toy_sweep.SWEEP.replace("  total:\n", "  last:\n").replace("results: [total]", "results: [double]")
        text = text.replace("toy_total", "toy_double").replace("{numbers: double}", "{number: double}")
        text = text[: text.index("  last:")] + text[text.index("results:") :]
        text = text.replace("  y: [10, 20]\n  kind:\n    plain: {behaviour: work}\n", "")
        session = open_session(toy_sweep.write_sweep(tmp_path, text), outputs=str(tmp_path / "out"))
        assert drive(session, None, True, None) == 0
        return again(session)

    return run


def verdicts(findings: Findings) -> dict[str, set[Verdict]]:
    entries = {each.entry for each in findings.reruns}
    return {name: {each.verdict for each in findings.reruns if each.entry == name} for name in sorted(entries)}


def test_other_bytes_are_told_from_other_numbers_and_a_tolerance_accepts_them(
    with_double: Callable[[str], Session],
) -> None:
    session = with_double("restless")
    findings = check(session, reruns=12)
    assert verdicts(findings) == {"double": {Verdict.OTHER_BYTES}, "source": {Verdict.IDENTICAL}}
    assert {each.files for each in findings.reruns if each.entry == "double"} == {("noise.txt",)}
    assert not findings.fine
    assert check(again(session), reruns=12, tolerance=1e-9).fine


def test_a_stage_that_is_not_deterministic_is_found_with_both_numbers(with_double: Callable[[str], Session]) -> None:
    session = with_double("drifting")
    findings = check(session, reruns=12)
    assert verdicts(findings) == {"double": {Verdict.DIFFERENT}, "source": {Verdict.IDENTICAL}}
    assert not findings.fine
    different = next(each for each in findings.reruns if each.verdict is Verdict.DIFFERENT)
    stored, now = different.metrics["total"]
    assert stored is not None
    assert now is not None
    assert 0 < now - stored < 1e-3
    assert check(again(session), reruns=12, tolerance=1e-2).fine


def test_a_step_that_raises_this_time_is_a_finding(
    with_double: Callable[[str], Session], capfd: pytest.CaptureFixture[str]
) -> None:
    session = with_double("forgetful")
    capfd.readouterr()
    findings = check(session, reruns=12)
    assert verdicts(findings) == {"double": {Verdict.RAISED}, "source": {Verdict.IDENTICAL}}
    assert findings.reruns[-1].error == "OSError: the service is gone"
    assert not findings.fine
    assert capfd.readouterr().out == ""


@given(st.dictionaries(st.sampled_from("abcde"), st.sets(st.integers(0, 99), max_size=6)), st.integers(0, 40))
def test_a_sample_has_the_size_asked_for_and_is_spread_over_the_entries(
    by_entry: dict[str, set[int]], count: int
) -> None:
    apart = {name: {100 * ord(name) + number for number in numbers} for name, numbers in by_entry.items()}
    chosen = sample(apart, count, 0)
    assert chosen == sample(apart, count, 0)
    assert len(set(chosen)) == len(chosen) == min(count, sum(map(len, apart.values())))
    taken = {name: len(numbers & set(chosen)) for name, numbers in apart.items()}
    # An entry has at most one less than any other, unless it has no more to give.
    assert all(taken[name] == len(numbers) or taken[name] >= max(taken.values()) - 1 for name, numbers in apart.items())


def test_the_command_says_that_all_is_well_or_what_is_not(tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP.replace("behaviour: work", "behaviour: print"))
    nothing = sweep(tmp_path, "verify", "toy.yaml")
    assert nothing.returncode == 0, nothing.stderr
    assert "none of its steps is committed yet" in nothing.stdout
    assert sweep(tmp_path, "run", "toy.yaml", "--inline").returncode == 0
    clean = sweep(tmp_path, "verify", "toy.yaml", "--rerun", "9")
    assert clean.returncode == 0, clean.stderr
    assert "18 artifacts read" in clean.stdout
    assert "steps run again: 9 identical" in clean.stdout
    assert "all is as it was committed" in clean.stdout
    # What steps print, their children included, is in the way of nobody who reads JSON.
    report = json.loads(sweep(tmp_path, "verify", "toy.yaml", "--rerun", "9", "--json").stdout)
    assert (report["fine"], report["checked"], len(report["reruns"])) == (True, 18, 9)
    session = open_session(tmp_path / "toy.yaml", outputs=str(tmp_path / "outputs"))
    flip(session, 17)
    assert "20 were requested, but no other" in sweep(tmp_path, "verify", "toy.yaml", "--rerun", "20").stdout
    torn = sweep(tmp_path, "verify", "toy.yaml", "--rerun", "0")
    assert torn.returncode == 1
    stage, key = session.plan.address(17)
    assert f"damaged  total x=3,y=20,kind=plain ({stage}/{key}): the bytes of" in torn.stdout
    assert "--discard" in torn.stdout
    (found,) = json.loads(sweep(tmp_path, "verify", "toy.yaml", "--json", "--discard").stdout)["damaged"]
    assert (found["entry"], found["stage"], found["key"]) == ("total", stage, key)
    assert sweep(tmp_path, "run", "toy.yaml", "--inline").returncode == 0
    assert sweep(tmp_path, "verify", "toy.yaml").returncode == 0


def test_the_command_shows_metrics_that_differ_side_by_side(with_double: Callable[[str], Session]) -> None:
    session = with_double("drifting")
    done = CliRunner().invoke(app, ["verify", str(session.file), "--outputs", str(session.outputs.root)])
    assert done.exit_code == 1
    assert "different  double x=" in done.stdout
    assert " (toy_double/" in done.stdout
    stored, now = next(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("    total"))
    assert 1 < float(stored) < float(now)
    assert "made on" in done.stdout
