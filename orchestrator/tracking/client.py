"""MLflow's client: opened without retries and chatter, its errors translated into ours."""

from __future__ import annotations

import http.client
import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.redact import bare, redact
from orchestrator.regular_file import open_file
from orchestrator.tracking.backend import RunRefusedError
from orchestrator.tracking.experiment import Experiment


class TrackingError(Exception):
    """MLflow does not answer, or refuses a run. The sweep goes on without it; `sweep sync` catches up."""


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn whatever MLflow, its database or the network raise into TrackingError."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        # By name, since importing MLflow takes seconds, which a server that is down is not worth. A database whose
        # driver is not installed is an ImportError.
        foreign = isinstance(error, (OSError, ImportError, RunRefusedError))
        if not foreign and type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "alembic"):
            raise
        first = redact(str(error), uri).strip().partition("\n")[0] or type(error).__name__
        message = f"MLflow at {redact(uri)} failed: {first}; nothing is lost, run `sweep sync` later"
        said = next((remedy for words, remedy in _REMEDIES.items() if words in first), "")
        raise TrackingError(message + said) from error


_ANEW = "move the file away: `sweep sync` writes a new one, with all runs of the sweep that it is given"
#: What SQLite says -> what helps.
_REMEDIES = {
    "database is locked": "; another process has it open for writing: end that first",
    "readonly database": "; give this user the right to write it, or choose another with --tracking-uri",
    "disk image is malformed": f"; it is damaged: {_ANEW}",
    "file is not a database": f"; {_ANEW}",
    "already exists": f"; a process was killed while it made it: {_ANEW}",
    "no such column": f"; it is not MLflow's: {_ANEW}",
    "Can't locate revision": f"; another version of MLflow made it: upgrade this one, or {_ANEW}",
}


def open_client(uri: str, imported: Callable[[], None]) -> Any:
    """Open an `mlflow.MlflowClient`.

    Args:
        uri: MLflow's tracking URI; the folder of an SQLite database is made.
        imported: called once MLflow is imported, which takes seconds, as may opening its database.

    Raises:
        TrackingError: a server does not answer.
    """
    check_reachable(uri)
    _configure()
    import mlflow

    imported()
    if uri.startswith("sqlite:///"):
        _make_database(Path(uri.removeprefix("sqlite:///")))
    return mlflow.MlflowClient(tracking_uri=uri)


def _make_database(path: Path) -> None:
    """Make an SQLite database of MLflow's where there is none, whole or not at all.

    MLflow makes it table by table, in seconds; killed meanwhile, it leaves one that it can neither use nor finish.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    import mlflow

    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        made = Path(folder) / "mlflow.db"
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{made}")
        client.search_experiments(max_results=1)
        client._tracking_client.store.engine.dispose()
        # Another process may have made it in the meantime.
        with suppress(FileExistsError):
            os.link(made, path)


def _configure() -> None:
    # MLflow would also repeat what creates a run, and make a twin of it when only the answer was lost. A whole
    # synchronisation may be repeated, since it finds what is there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # Otherwise every run that ends costs a request more and prints two lines.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.ERROR)


def open_experiment(client: Any, experiment: Experiment, rebuild: bool) -> Any:
    """Find, restore or create an experiment, and bring its page up to date; returns MLflow's entity of it.

    Args:
        client: an `mlflow.MlflowClient`.
        experiment: what it is to be.
        rebuild: delete the one of that name, and create a new one.
    """
    found = client.get_experiment_by_name(experiment.name)
    if found and rebuild and found.lifecycle_stage != "deleted":
        # A deleted experiment keeps its name.
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        client.rename_experiment(found.experiment_id, f"{experiment.name} (replaced {when})")
        client.delete_experiment(found.experiment_id)
        found = None
    if found is None:
        found = client.get_experiment(_create_experiment(client, experiment))
    elif found.lifecycle_stage == "deleted":
        # Its runs come back, too.
        client.restore_experiment(found.experiment_id)
    if found.tags.get("mlflow.note.content") != experiment.description:
        client.set_experiment_tag(found.experiment_id, "mlflow.note.content", experiment.description)
    return found


def _create_experiment(client: Any, experiment: Experiment) -> str:
    name, uri = experiment.name, experiment.uri
    # The kind keeps MLflow's pages from asking for it, and from showing those of language-model traces.
    tags = {"mlflow.note.content": experiment.description, "mlflow.experimentKind": "custom_model_development"}
    options = {}
    if uri.startswith("sqlite:///"):
        # Beside the database, not in whatever directory the command was given from.
        folder = Path(uri.removeprefix("sqlite:///")).parent / "mlflow-artifacts" / name
        options = {"artifact_location": folder.absolute().as_uri()}
    return str(client.create_experiment(name, tags=tags, **options))


def is_server(uri: str) -> bool:
    """Whether a tracking URI means a server, not a database."""
    return uri.startswith(("http://", "https://"))


def check_reachable(uri: str) -> None:
    """Find out in seconds that a server is down, without MLflow's minutes of retries.

    Raises:
        TrackingError: it does not answer, or with an error of its own; or the file of an SQLite database can be none;
            with the remedy.
    """
    if not is_server(uri):
        _check_file(uri)
        return
    try:
        with urllib.request.urlopen(f"{bare(uri).rstrip('/')}/health", timeout=5):  # noqa: S310 (http)
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return
        reason = f"answers with {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = redact(str(getattr(error, "reason", error)), uri)
    remedy = "start it or correct --tracking-uri, then run `sweep sync`"
    raise TrackingError(f"the MLflow server {redact(uri)} does not answer ({reason}); {remedy}")


def _check_file(uri: str) -> None:
    """Look at the file of an SQLite database: MLflow would try for minutes to open a folder."""
    if not uri.startswith("sqlite:///"):
        return
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    try:
        with open_file(path) as stream:
            start = stream.read(len(_SQLITE))
        what = "" if start in (b"", _SQLITE) else "is no SQLite database"
    except FileNotFoundError:
        # It is made, unless it is a link that leads nowhere.
        what = "is a link to a file that is not there" if path.is_symlink() else ""
    except OSError as error:
        what = f"cannot be opened ({error.strerror or error})"
    if what:
        remedy = f"{_ANEW}; or choose another with --tracking-uri"
        raise TrackingError(f"MLflow's database {path} {what}; nothing is lost: {remedy}")


#: What a file of SQLite 3 begins with, unless it is empty.
_SQLITE = b"SQLite format 3\0"
