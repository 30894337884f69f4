"""The store of a search is looked after like any other: what its trials use is no garbage, and is verified."""

from __future__ import annotations

from pathlib import Path

import toy_sweep

from orchestrator.drive import drive
from orchestrator.maintenance.gc import collect, of_trials
from orchestrator.maintenance.pins import list_pins, pin
from orchestrator.maintenance.verify import verify
from orchestrator.session import Session, open_session

#: Nothing fails.
TEXT = toy_sweep.ODD_SEARCH.replace("bad: raise", "bad: work")


def opened(folder: Path, *overrides: str) -> Session:
    return open_session(toy_sweep.write_sweep(folder, TEXT), list(overrides), outputs=str(folder / "out"))


def files(folder: Path, part: str) -> set[Path]:
    return {path for path in (folder / "out" / "store" / part).rglob("*") if path.is_file()}


def test_what_suggested_trials_use_stays_also_what_the_best_was_measured_on_again(tmp_path: Path) -> None:
    assert drive(opened(tmp_path), None, True, None) == 0
    # 2 sources, 2 · 3 doubles, and for each of two studies 4 · 2 trials and a fresh one.
    assert len(of_trials(opened(tmp_path))) == 2 + 6 + 2 * 4 * 3
    kept, records = files(tmp_path, "artifacts"), files(tmp_path, "studies")
    report = collect([opened(tmp_path)], [], delete_it=True)
    assert {name: (each["kept"], each["delete"]) for name, each in report["stages"].items()} == {
        "toy_source": (2, 0), "toy_double": (6, 0), "toy_total": (18, 0),
    }  # fmt: skip
    # With one trial more the study goes on: what its trials will read is not dropped, and that of the fresh stays.
    more = ("search.tune.trials=5",)
    collect([opened(tmp_path, *more)], ["double"], delete_it=True)
    assert (files(tmp_path, "artifacts"), files(tmp_path, "studies")) == (kept, records)
    assert opened(tmp_path).schedule.done
    # When nothing more may come, it is. The records of studies stay whatever is kept.
    collect([opened(tmp_path)], ["double"], delete_it=True)
    assert not files(tmp_path, "artifacts/toy_double")
    assert opened(tmp_path).schedule.done
    other = tmp_path / "other"
    other.mkdir()
    file = toy_sweep.write_sweep(other, toy_sweep.SWEEP)
    collect([open_session(file, outputs=str(tmp_path / "out"))], [], delete_it=True)
    assert not files(tmp_path, "artifacts/toy_total")
    assert files(tmp_path, "studies") == records


def test_trials_are_verified_and_pinned(tmp_path: Path) -> None:
    assert drive(opened(tmp_path), None, True, None) == 0
    found = verify(opened(tmp_path), reruns=2, seed=0, checksums=True, tolerance=0, discard=False)
    assert (found.committed, found.checked, len(found.reruns), found.fine) == (26, 26, 2, True)
    assert pin(opened(tmp_path), "mine")["artifacts"] == 26
    assert list_pins(opened(tmp_path).store) == {"mine": {"artifacts": 26, "there": 26}}
