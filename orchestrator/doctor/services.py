"""What a sweep reaches besides its store: MLflow, the Hugging Face Hub, endpoints of judges, a job server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.doctor.file_system import existing, mount_of
from orchestrator.doctor.finding import Finding, ok, warning, wrong
from orchestrator.redact import bare, redact
from orchestrator.tracking.client import TrackingError, check_reachable, is_server

#: Seconds for one answer.
_PATIENCE = 5
_HUB = "https://huggingface.co"
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
#: Ports of databases whose URI names none.
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def mlflow(uri: str) -> Finding:
    """Tell whether MLflow can be reached at its tracking URI."""
    name, shown = "MLflow", redact(uri)
    if is_server(uri):
        try:
            check_reachable(uri)
        except TrackingError as error:
            seen, _, remedy = str(error).partition("; ")
            return warning(name, f"{seen}: sweeps run all the same, and MLflow gets its runs later", remedy)
        return ok(name, f"the server {shown} answers")
    scheme = uri.partition("://")[0].partition("+")[0]
    if scheme == "sqlite":
        return _database(name, Path(uri.removeprefix("sqlite:///")))
    if scheme in _PORTS:
        parts = urlsplit(uri)
        try:
            socket.create_connection((parts.hostname or "localhost", parts.port or _PORTS[scheme]), _PATIENCE).close()
        except (OSError, ValueError) as error:
            return warning(name, f"no answer at {shown}: {redact(str(error), uri)}", "start it, or correct the URI")
        return ok(name, f"something answers at {shown}; whether it lets us in was not tried")
    return ok(name, f"{shown} is a folder or of another kind, and was not looked at")


def _database(name: str, path: Path) -> Finding:
    another = "name another place, e.g. --tracking-uri sqlite:////path/of/mlflow.db or a server's"
    if path.is_dir():
        return wrong(name, f"{path} is a folder, no database", another)
    mount = mount_of(existing(path))
    if mount and mount.kind.startswith(("nfs", "cifs", "smb")):
        seen = f"{path} lies on {mount.kind}, where two processes that write a database may spoil it"
        return warning(name, seen, "name a server, or a database on a local disk (--tracking-uri)")
    if not path.exists():
        folder = existing(path.parent)
        if not os.access(folder, os.W_OK):
            return wrong(name, f"{path} cannot be made: {folder} cannot be written", another)
        return ok(name, f"the database {path} is not there yet; the first run makes it")
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=2)
        ) as database:
            tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
            database.execute("begin immediate")
            database.rollback()
    except sqlite3.Error as error:
        if "locked" in str(error):
            return warning(name, f"the database {path} is locked by somebody", "wait for who writes to it, or end it")
        return wrong(name, f"the database {path} cannot be used: {error}", f"move it away, or {another}")
    if tables and "experiments" not in tables:
        return wrong(name, f"{path} is a database of something else than MLflow", another)
    return ok(name, f"the database {path} can be written")


def hub() -> Finding:
    """Tell whether the Hugging Face Hub can be reached, or is not meant to be."""
    name, address = "Hub", (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    offline = [each for each in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(each, "").upper() in _TRUE]
    if offline:
        home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
        return ok(name, f"{offline[0]} is set: models and data sets come from {home} only")
    code = _get(f"{address}/api/models?limit=1")
    if isinstance(code, int) and code < 400:
        return ok(name, f"{redact(address)} answers")
    return warning(
        name,
        f"{redact(address)} {_told(code)}: what is not in the cache cannot be fetched",
        "reach it by a proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT), or export HF_HUB_OFFLINE=1 to do without",
    )


def endpoint(url: str, key: str | None) -> Finding:
    """Tell whether a server of judgments answers; no key is sent.

    Args:
        url: base URL of the server.
        key: the environment variable that holds its key; None if it needs none.
    """
    name = "endpoint"
    code = _get(f"{bare(url).rstrip('/')}/models")
    if isinstance(code, str) or code >= 500:
        remedy = "start it, correct `endpoint` in the sweep, or reach it by a proxy (HTTPS_PROXY)"
        return wrong(name, f"{redact(url)} {_told(code)}: steps that ask it fail", remedy)
    if key and not os.environ.get(key, "").strip():
        seen = f"{redact(url)} answers, but {key}, its key, is not set here"
        return warning(name, seen, f"export {key} on every node before Ray is started there")
    return ok(name, f"{redact(url)} answers" + (f", and {key} is set here" if key else ""))


def endpoints(value: Any) -> Iterator[tuple[str, str | None]]:
    """Find the servers of judgments that a sweep names, each with the variable that holds its key.

    Args:
        value: the document of the sweep.
    """
    if isinstance(value, Mapping):
        found = value.get("endpoint")
        if isinstance(found, str) and found.startswith(("http://", "https://")):
            access = value.get("access")
            key = access.get("key_env", "OPENAI_API_KEY") if isinstance(access, Mapping) else "OPENAI_API_KEY"
            yield found, key if isinstance(key, str) else None
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from endpoints(each)


def job_server(address: str) -> Finding:
    """Tell whether a Ray job server answers at an address."""
    name, shown = "job server", redact(address)
    remedy = "start one (ray start --head), or correct --address or RAY_ADDRESS"
    try:
        url = f"{bare(address).rstrip('/')}/api/version"
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 (http)
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return ok(name, f"{shown} answers, and wants a token")
        return wrong(name, f"{shown} answers with {error.code}", remedy)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return wrong(name, f"{shown} {_told(_reason(error))}", remedy)
    if not isinstance(found, dict) or "ray_version" not in found:
        return wrong(name, f"{shown} answers, but is no job server of Ray", remedy)
    return ok(name, f"{shown} answers: Ray {found['ray_version']}; without a token")


def _get(url: str) -> int | str:
    """Return the status of a GET, or why there is none."""
    if not url.startswith(("http://", "https://")):
        return "no http address"
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 (http)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _told(answer: int | str) -> str:
    return f"answers with {answer}" if isinstance(answer, int) else f"does not answer ({redact(answer)})"
