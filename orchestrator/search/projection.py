"""Optuna's own storage as a projection of our studies, for its dashboard and other tools: deleted and made at will.

A journal is a file of this sweep alone, written whole; a torn line or the lock of a writer that was killed cannot stay
in it. A database may be shared: only studies that are ours are touched there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial

from orchestrator.redact import redact
from orchestrator.search.distribution import directions
from orchestrator.search.optuna_study import NUMBER, STUDY, create, describe, frozen
from orchestrator.search.quiet import quiet
from orchestrator.search.trial import Study
from orchestrator.store.atomic import replace_file


class ProjectionError(Exception):
    """A storage of Optuna cannot be used. Nothing of ours is lost: the studies are in the store."""


class StudyTakenError(ProjectionError):
    """A storage of Optuna has a study of the same name that is somebody else's."""

    def __init__(self, storage: str, study: str, remedy: str) -> None:
        self.storage, self.study = redact(storage, storage), study
        super().__init__(f"{self.storage} already has a study {study!r}, which this sweep did not make; {remedy}")


def project(studies: Iterable[Study], url: str) -> None:
    """Bring a storage of Optuna up to date; trials that have not ended are not shown there.

    Args:
        studies: all that the storage is to show.
        url: the path of a journal, or the URL of a database as SQLAlchemy takes it.

    Raises:
        StudyTakenError: a study there has the name of one of these and is not ours; or a journal has any such study.
        ProjectionError: the storage cannot be used.
        StoreError: the journal cannot be written.
    """
    shown = list(studies)
    if "://" in url:
        _project_to_database(shown, url)
    else:
        _project_to_journal(shown, Path(url))


class _Lines(BaseJournalBackend):
    """A journal in memory."""

    def __init__(self, logs: Iterable[dict[str, Any]] = ()) -> None:
        self.logs = list(logs)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield what was written, from a number on."""
        yield from self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write at the end."""
        self.logs += logs

    @property
    def content(self) -> bytes:
        """The bytes of a journal file; the same for the same studies, whichever process wrote them."""
        return b"".join(
            json.dumps(log | {"worker_id": "sweep"}, separators=(",", ":")).encode() + b"\n" for log in self.logs
        )


def _project_to_journal(studies: list[Study], path: Path) -> None:
    lines = _Lines()
    storage = JournalStorage(lines)
    for study in studies:
        create(study, storage)
        for _, trial in _ended(study):
            storage.create_new_trial(storage.get_study_id_from_name(study.name), trial)
    content = lines.content
    try:
        known = path.read_bytes()
    except FileNotFoundError:
        known = b""
    except OSError as error:
        raise ProjectionError(f"{path} cannot be read: {error.strerror or error}") from error
    if known == content:
        return
    for name in _foreign(known, path):
        raise StudyTakenError(str(path), name, "a journal is written whole: move the file, or name another one")
    replace_file(path, content)


def _foreign(content: bytes, path: Path) -> list[str]:
    """Name the studies in a journal that are not ours; what is torn there is ours."""
    logs = []
    for line in content.splitlines():
        try:
            log = json.loads(line)
        except ValueError:
            continue
        if isinstance(log, dict) and "op_code" in log:
            logs.append(log)
    if content.strip() and not logs:
        raise ProjectionError(f"{path} is no journal of Optuna, and is left as it is; move it, or name another file")
    try:
        studies = JournalStorage(_Lines(logs)).get_all_studies()
    except (KeyError, TypeError, ValueError) as error:
        raise ProjectionError(f"{path} is damaged; delete it, and it is made again") from error
    return [each.study_name for each in studies if STUDY not in each.user_attrs]


def _project_to_database(studies: list[Study], url: str) -> None:
    # SQLAlchemy comes with Optuna.
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with quiet():
            storage = RDBStorage(url)
            try:
                for study in studies:
                    _bring_up_to_date(study, storage, url)
            finally:
                storage.remove_session()
                storage.engine.dispose()
    except (SQLAlchemyError, StorageInternalError, ImportError, KeyError) as error:
        # A study that another driver makes anew is not there for a moment: KeyError.
        reason = redact(str(error), url).partition("\n")[0]
        raise ProjectionError(f"the storage {redact(url, url)} cannot be used: {reason}") from error


def _bring_up_to_date(study: Study, storage: BaseStorage, url: str) -> None:
    ended = _ended(study)
    try:
        create(study, storage)
    except DuplicatedStudyError:
        made = storage.get_study_id_from_name(study.name)
        there = storage.get_all_trials(made, deepcopy=False)
        known = storage.get_study_user_attrs(made)
        if STUDY not in known and not there and storage.get_study_directions(made) == directions(study.search):
            # Whoever made it was killed before it could say for whom, or is about to.
            describe(study, storage)
        elif known.get(STUDY) != study.id:
            remedy = (
                f"name another `storage`, or delete it: optuna delete-study --study-name {study.name!r} --storage URL"
            )
            raise StudyTakenError(url, study.name, remedy) from None
        numbers = [each.user_attrs.get(NUMBER) for each in there]
        wanted = dict(ended)
        same = len(set(numbers)) == len(numbers) and all(
            number in wanted and _content(wanted[number]) == _content(each)
            for number, each in zip(numbers, there, strict=True)
        )
        if same:
            ended = [(number, trial) for number, trial in ended if number not in numbers]
        else:
            storage.delete_study(made)
            create(study, storage)
    made = storage.get_study_id_from_name(study.name)
    for _, trial in ended:
        storage.create_new_trial(made, trial)


def _ended(study: Study) -> list[tuple[Any, FrozenTrial]]:
    return [(each.number, frozen(study, each)) for each in study.trials if each.state != "running"]


def _content(trial: FrozenTrial) -> tuple[Any, ...]:
    """What is compared of a trial; some databases keep no fractions of a second."""
    return (
        trial.state,
        trial.values,
        trial.params,
        trial.distributions,
        trial.intermediate_values,
        trial.user_attrs,
        trial.system_attrs,
    )
