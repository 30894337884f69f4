"""Optuna's own copy of the studies of a sweep: written by a run, deleted at will, never in the way."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import toy_sweep
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from orchestrator.drive import drive
from orchestrator.events import Event, Troubled
from orchestrator.session import Session, open_session
from orchestrator.sweep.problems import SweepError


def opened(folder: Path, *overrides: str) -> Session:
    file = toy_sweep.write_sweep(folder, toy_sweep.ODD_SEARCH)
    return open_session(file, list(overrides), outputs=str(folder / "out"))


def run(session: Session) -> tuple[int, list[str]]:
    """The exit code, and what was told as trouble."""
    events: list[Event] = []
    return drive(session, None, True, None, events.append), [
        each.message for each in events if isinstance(each, Troubled)
    ]


def test_a_run_leaves_its_studies_for_optuna_beside_the_table_and_makes_them_anew(tmp_path: Path) -> None:
    assert run(opened(tmp_path)) == (1, [])
    journal = tmp_path / "out" / "sweeps" / "toy" / "optuna.journal"

    def best() -> dict[str, float]:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return {
            each.study_name: optuna.load_study(study_name=each.study_name, storage=storage).best_value
            for each in optuna.get_all_study_summaries(storage)
        }

    # total = 2 · x + y + add, at y = 0 and 10.
    assert best() == {"tune/x=1": 13.5, "tune/x=2": 15.5}
    content = journal.read_bytes()
    journal.unlink()
    # Also where nothing is left to be run but what failed.
    assert run(opened(tmp_path)) == (1, [])
    assert journal.read_bytes() == content
    # A failure of it is told, and ends nothing.
    journal.unlink()
    journal.mkdir()
    code, told = run(opened(tmp_path, "search.tune.trials=5"))
    assert code == 1
    assert len(told) == 1
    assert str(journal) in told[0]
    assert "the sweep goes on" in told[0]


def test_a_storage_with_somebody_elses_study_of_the_name_is_refused_before_anything_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="tune/x=2", storage=url, direction="minimize").enqueue_trial({"add": 1})
    session = opened(tmp_path, f"search.tune.storage={url}")
    with pytest.raises(SweepError, match="already has a study 'tune/x=2'") as caught:
        run(session)
    (problem,) = caught.value.problems
    assert "search.tune.storage" in str(problem)
    assert not list((tmp_path / "out").rglob("manifest.json"))
    storage = RDBStorage(url)
    optuna.delete_study(study_name="tune/x=2", storage=storage)
    assert run(opened(tmp_path, f"search.tune.storage={url}")) == (1, [])
    assert optuna.load_study(study_name="tune/x=2", storage=url).best_value == 15.5
