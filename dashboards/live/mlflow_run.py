"""Where MLflow shows the run of a cell."""

from __future__ import annotations

import base64
import json
import urllib.parse
import urllib.request
from functools import lru_cache
from typing import Any

from orchestrator.redact import bare

#: Seconds that an MLflow server may take to name a run.
_PATIENCE = 2.0


def run_address(uri: str, experiment: str, cell: str) -> str | None:
    """Ask an MLflow server where it shows the run of a cell; None if it does not know it, or does not answer at once.

    Asks MLflow's REST API (https://mlflow.org/docs/latest/rest-api.html), so that nothing here imports mlflow.
    """
    base = bare(uri).rstrip("/")
    api = f"{uri.rstrip('/')}/api/2.0/mlflow"
    try:
        query = urllib.parse.urlencode({"experiment_name": experiment})
        found = _request(f"{api}/experiments/get-by-name?{query}")["experiment"]["experiment_id"]
        wanted = {"experiment_ids": [found], "filter": f"tags.`sweep.cell_id` = '{cell}'", "max_results": 1}
        runs = _request(f"{api}/runs/search", wanted).get("runs", [])
        return f"{base}/#/experiments/{found}/runs/{runs[0]['info']['run_id']}" if runs else None
    except (OSError, ValueError, KeyError):
        return None


@lru_cache(maxsize=1000)
def recent_address(uri: str, experiment: str, cell: str, minute: int) -> str | None:
    """Ask as `run_address` does, once a minute: a server that does not answer must not hold up every refresh."""
    return run_address(uri, experiment, cell)


def _request(url: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    body = json.dumps(content).encode() if content is not None else None
    parts = urllib.parse.urlsplit(url)
    headers = {"Content-Type": "application/json"}
    if parts.username is not None:
        known = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(known.encode()).decode()}"
    # Whoever calls this has seen that it begins with http.
    prepared = urllib.request.Request(bare(url), body, headers)  # noqa: S310
    with urllib.request.urlopen(prepared, timeout=_PATIENCE) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found
