"""Secrets in all places where people have them, and nothing of them in anything that is written or printed."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from command_server import sweep
from servers import free_port, put_mlflow_database

from orchestrator.cli.job.package import package_files
from orchestrator.results.parquet import read_results
from orchestrator.session import open_session
from orchestrator.study.copy import excludes, make_copy

pytestmark = pytest.mark.mlflow

#: With characters that URLs, JSON and HTML escape.
TOKEN = 'Qs3cret/+"Z'
SECRETS = {
    name: f"{TOKEN}{number:02}"
    for number, name in enumerate((
        "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD",
        "WANDB_API_KEY", "RAY_AUTH_TOKEN", "FSSPEC_SFTP_PASSWORD", "PGPASSWORD",
    ))
}  # fmt: skip
#: In URIs such characters are quoted.
URIS = {
    "PIP_INDEX_URL": "https://me:Qs3cretUri1@index.example/simple",
    "HTTPS_PROXY": "http://me:Qs3cretUri2@proxy.example:3128",
    "DATABASE_URL": "postgresql://me:Qs3cretUri3@db.example/x",
}
FILES = {
    ".env": "HF_TOKEN=Qs3cretFile\n", ".netrc": "machine x login me password Qs3cretFile\n",
    ".git/config": "[remote]\nurl = https://me:Qs3cretFile@git.example/x\n", ".ray/auth_token": "Qs3cretFile",
    ".aws/credentials": "aws_secret_access_key = Qs3cretFile\n", "id.pem": "Qs3cretFile",
}  # fmt: skip
SIGNED = (
    "https://bucket.s3.amazonaws.com/x?X-Amz-Algorithm=A&X-Amz-Credential=Qs3cretA&X-Amz-Security-Token=Qs3cretB"
    "&X-Amz-Signature=Qs3cretC"
)

STAGES = f"""
import json
import os
from pathlib import Path
from urllib.parse import quote

NAMES = {[*SECRETS, *URIS]!r}


def quoted() -> str:
    said = []
    for name in NAMES:
        value = os.environ[name]
        password = value.split(":")[2].partition("@")[0] if "://" in value else value
        said += [f"{{name}}: {{value}}", f"Bearer {{password}}", quote(value, safe=""), json.dumps(value), repr(value)]
    return "refused: " + ", ".join(said) + ", {SIGNED}"


def make(out: Path, kind: str) -> dict[str, float]:
    (out / "x").write_text("x")
    if kind == "error":
        raise ValueError(quoted())
    if kind == "cut":
        raise ValueError("x" * 1995 + " " + quoted())
    if kind == "chain":
        try:
            raise OSError(quoted())
        except OSError as error:
            raise ValueError("see above") from error
    return {{"gain": 1.0}}
"""

SWEEP = """\
name: planted
question: Does it leak?
axes: {kind: [work, error, cut, chain]}
stages:
  make: {stage: planted_stages:make, metrics: [gain], config: {kind: $kind}}
hooks: {finish: 'echo "$HF_TOKEN" >&2; exit 1'}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study, and its surroundings."""
    for name, value in {**SECRETS, **URIS}.items():
        monkeypatch.setenv(name, value)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "planted_stages.py").write_text(STAGES)
    (tmp_path / "planted.yaml").write_text(SWEEP)
    return tmp_path


def test_no_secret_is_in_anything_that_a_sweep_writes_or_prints(folder: Path) -> None:
    put_mlflow_database(folder / "outputs" / "mlflow.db")
    said = {}
    for words, code in (
        (("run", "--inline"), 1),
        (("why", "kind=error"), 0),
        (("show", "kind=chain", "--stage", "make"), 0),
        (("report", "--mlflow"), 0),
    ):
        done = sweep(folder, words[0], "planted.yaml", *words[1:])
        assert done.returncode == code, (words, done.stdout, done.stderr)
        said[words] = done.stdout + done.stderr
    assert "hooks.finish ended with 1: ***" in said["run", "--inline"]
    assert "HF_TOKEN: ***, Bearer ***, ***" in said["why", "kind=error"]
    # A server of MLflow that does not answer.
    away = f"http://me:Qs3cretUri4@127.0.0.1:{free_port()}"
    done = sweep(folder, "sync", "planted.yaml", "--tracking-uri", away)
    assert done.returncode == 2
    said["sync",] = done.stdout + done.stderr
    for words, text in said.items():
        assert "Qs3cret" not in text, words
    written = [path for path in folder.rglob("*") if path.is_file() and not is_planted(path.relative_to(folder))]
    names = {path.suffix for path in written}
    assert {".log", ".json", ".parquet", ".db", ".html", ".md"} <= names
    assert len([path for path in written if path.name == "report.html"]) == 2, "one is MLflow's"
    assert not [path for path in written if b"Qs3cret" in path.read_bytes() + os.fsencode(path)]
    # What was compressed.
    table = read_results(folder / "outputs" / "sweeps" / "planted").to_pylist()
    assert "Qs3cret" not in str(table)
    assert str(table).count("***") > 20


def is_planted(path: Path) -> bool:
    return path.as_posix() in FILES or path.name.startswith("planted")


def test_no_secret_of_a_working_directory_is_copied_to_a_cluster(folder: Path) -> None:
    files = package_files(folder, excludes(folder))
    assert set(map(str, files)) == {"planted.yaml", "planted_stages.py"}
    session = open_session(folder / "planted.yaml", outputs=str(folder / "outputs"))
    copy = make_copy(session.spec.available, [folder / "outputs"])
    assert copy
    with zipfile.ZipFile(io.BytesIO(copy.content)) as archive:
        assert set(archive.namelist()) == set(map(str, files))
