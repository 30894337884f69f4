"""A search whose store is an object store."""

from __future__ import annotations

from pathlib import Path

from search_toy import write_bowls

from orchestrator.drive import drive
from orchestrator.session import open_session
from orchestrator.store import open_store


def test_a_study_in_an_object_store_is_the_study_in_a_folder(tmp_path: Path, s3: str) -> None:
    found = []
    for root, limit in ((str(tmp_path / "out"), ()), (s3, ("limits.wall=0.5",)), (s3, ())):
        session = open_session(
            write_bowls(tmp_path), list(limit), outputs=str(tmp_path / "tables"), store=f"{root}/store"
        )
        code = drive(session, inline=True)
        if not limit:
            assert code == 0
            history = [study.history.suggestions for study in session.studies.all]
            found.append([[each.values for each in study.values()] for study in history])
            store = open_store(session.outputs.store)
            assert sorted(store.studies()) == sorted(study.id for study in session.studies.all)
    assert found[0] == found[1]
    assert [len(study) for study in found[0]] == [6, 6]
