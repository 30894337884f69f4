"""Optuna's own storage shows what our studies are: it is made anew at will, and never touches somebody else's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from search_studies import MEDIAN, a_search, a_study
from servers import free_port, kill_group, wait_until_it_answers

from orchestrator.search.projection import ProjectionError, StudyTakenError, project
from orchestrator.search.trial import Study


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


@pytest.fixture
def study() -> Study:
    return a_study(a_search(pruner=MEDIAN), 20, running=2)


def test_a_journal_shows_the_trials_that_have_ended(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "below" / "studies.log"
    other = a_study(a_search(), 3, name="tuning/harmless, tiny", id="9")
    project([study, other], str(path))
    assert sorted(optuna.get_all_study_names(journal(path))) == ["tuning/harmless, tiny", "tuning/helpful"]
    shown = optuna.load_study(study_name="tuning/helpful", storage=journal(path))
    ended = [each for each in study.trials if each.state != "running"]
    assert [each.params for each in shown.trials] == [each.values for each in ended]
    assert study.best is not None
    assert shown.best_value == (study.best.objectives or ())[0]


def test_a_journal_is_written_only_when_something_changed_and_the_same_again(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "studies.log"
    project([study], str(path))
    first, inode = path.read_bytes(), path.stat().st_ino
    project([study], str(path))
    assert path.stat().st_ino == inode
    path.unlink()
    project([study], str(path))
    assert path.read_bytes() == first
    project([replace(study, trials=study.trials[:5])], str(path))
    assert len(optuna.load_study(study_name=study.name, storage=journal(path)).trials) == 5
    assert sorted(each.name for each in tmp_path.iterdir()) == ["studies.log"]


def test_a_torn_line_and_the_lock_of_a_killed_writer_do_no_harm(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "studies.log"
    project([study], str(path))
    whole = path.read_bytes()
    Path(f"{path}.lock").symlink_to("nowhere")
    for torn in (whole + b'{"op_code":4,"wor', whole[:-20], whole[:10], b""):
        path.write_bytes(torn)
        if torn == whole[:10]:
            # Nothing tells that it was a journal.
            with pytest.raises(ProjectionError, match="is no journal of Optuna, and is left as it is"):
                project([study], str(path))
            continue
        project([study], str(path))
        assert path.read_bytes() == whole


def test_an_edited_search_takes_the_place_of_the_one_before_in_a_journal(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "studies.log"
    project([study], str(path))
    project([replace(study, id="edited", trials=study.trials[:2])], str(path))
    assert len(optuna.load_study(study_name=study.name, storage=journal(path)).trials) == 2


def test_a_journal_with_somebody_elses_study_is_left_as_it_is(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "studies.log"
    optuna.create_study(study_name="mine", storage=journal(path))
    before = path.read_bytes()
    with pytest.raises(StudyTakenError, match=r"studies.log already has a study 'mine', which this sweep did not make"):
        project([study], str(path))
    assert path.read_bytes() == before
    (tmp_path / "notes.txt").write_text("buy milk\n")
    with pytest.raises(ProjectionError, match="is no journal of Optuna"):
        project([study], str(tmp_path / "notes.txt"))
    with pytest.raises(ProjectionError, match="Is a directory"):
        project([study], str(tmp_path))


def test_a_database_gets_the_missing_trials_and_studies_that_differ_are_made_anew(study: Study, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(study_name="somebody's", storage=url)
    project([study], url)
    first = optuna.load_study(study_name=study.name, storage=url)
    assert [each.user_attrs["sweep.trial"] for each in first.trials] == list(range(18))
    ended = replace(
        study, trials=tuple(replace(e, state="failed") if e.state == "running" else e for e in study.trials)
    )
    project([ended], url)
    grown = optuna.load_study(study_name=study.name, storage=url)
    assert (len(grown.trials), grown._study_id) == (20, first._study_id)
    changed = replace(ended, trials=tuple(replace(each, seconds=9.0) for each in ended.trials[:7]))
    project([changed], url)
    anew = optuna.load_study(study_name=study.name, storage=url)
    assert [each.user_attrs["seconds"] for each in anew.trials] == [9.0] * 7
    assert "somebody's" in optuna.get_all_study_names(url)


def test_a_study_in_a_database_that_is_not_ours_is_named_with_its_remedy(study: Study, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    project([study], url)
    with pytest.raises(StudyTakenError, match=r"studies.db already has a study 'tuning/helpful'.* optuna delete-study"):
        project([replace(study, id="another")], url)
    # Somebody was killed between making a study and saying for whom.
    optuna.create_study(study_name="half", storage=url, direction="maximize")
    project([replace(study, name="half")], url)
    optuna.create_study(study_name="theirs", storage=url, direction="maximize").ask()
    with pytest.raises(StudyTakenError, match="'theirs'"):
        project([replace(study, name="theirs")], url)


def test_a_database_that_cannot_be_used_is_named_without_its_password(study: Study) -> None:
    for url in ("postgresql://me:horsebattery@127.0.0.1:1/x", "nosuch://me:horsebattery@here/x"):
        with pytest.raises(ProjectionError, match="cannot be used") as raised:
            project([study], url)
        assert "horsebattery" not in str(raised.value)
        assert "\n" not in str(raised.value)


def test_infinite_objectives_and_several_metrics_survive(tmp_path: Path) -> None:
    two = a_study(a_search(objective={"metric": ["score", "length"], "better": ["higher", "lower"]}), 8)
    worst = replace(two, trials=(replace(two.trials[0], objectives=(float("-inf"), float("inf"))), *two.trials[1:]))
    for url in (str(tmp_path / "studies.log"), f"sqlite:///{tmp_path}/studies.db"):
        project([worst], url)
        project([worst], url)
    for storage in (journal(tmp_path / "studies.log"), f"sqlite:///{tmp_path}/studies.db"):
        shown = optuna.load_study(study_name=two.name, storage=storage)
        assert shown.trials[0].values == [float("-inf"), float("inf")]


def test_the_dashboard_of_optuna_shows_a_copy_of_the_journal(study: Study, tmp_path: Path) -> None:
    project([study], str(tmp_path / "studies.log"))
    shutil.copy(tmp_path / "studies.log", tmp_path / "copy.log")
    port, program = free_port(), Path(sys.executable).with_name("optuna-dashboard")
    dashboard = subprocess.Popen(
        [program, tmp_path / "copy.log", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}/api/studies"
        wait_until_it_answers(url, dashboard)
        with urllib.request.urlopen(url) as answer:
            (found,) = json.load(answer)["study_summaries"]
    finally:
        kill_group(dashboard)
    assert found["study_name"] == "tuning/helpful"
