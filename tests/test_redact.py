"""No password leaves in a message, a log, a command that is shown, or the name of a file."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.redact import bare, redact, redact_uris

PASSWORDS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=4, max_size=12).map(lambda text: f"Q{text}Z")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:s3cret@db/mlflow", "postgresql://me:***@db/mlflow"),
        ("postgresql+psycopg2://me:a/b?c#d@e@db:5432/mlflow", "postgresql+psycopg2://me:***@db:5432/mlflow"),
        ("http://:s3cret@mlflow:5000", "http://:***@mlflow:5000"),
        ("https://hf_t0ken@mlflow", "https://***@mlflow"),
        ("sftp://me@host/folder", "sftp://me@host/folder"),
        ("s3://AKIA:s3cret@bucket/folder", "s3://AKIA:***@bucket/folder"),
        (
            "postgresql:///db?user=me&sslpassword=s3cret&sslmode=off",
            "postgresql:///db?user=me&sslpassword=***&sslmode=off",
        ),
        (
            "https://bucket.s3/x?X-Amz-Date=1&X-Amz-Signature=beef",
            "https://bucket.s3/x?X-Amz-Date=1&X-Amz-Signature=***",
        ),
        ("http://a/b,http://me:s3cret@c", "http://a/b,http://me:***@c"),
        ("http://a?x=1,http://b?token=s3cret", "http://a?x=1,http://b?token=***"),
    ],
)
def test_of_a_uri_all_but_its_secrets_is_shown(uri: str, shown: str) -> None:
    assert redact(uri) == shown
    assert redact(f"MLflow at {uri} failed\n  {uri} is down") == f"MLflow at {shown} failed\n  {shown} is down"
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////data/me@home/mlflow.db", "s3://bucket/me@home/x:y", "http://127.0.0.1:5000/#/experiments/1",
        "ray://head:10001", "https://hf.co/api/models?revision=main", "a: b @ c, key=value", "file:///C:/x@y",
    ],
)  # fmt: skip
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_the_secrets_of_a_known_uri_are_hidden_where_they_stand_alone() -> None:
    uri = "http://me:s3%20cret/x@mlflow"
    said = redact("nonnumeric port: 's3%20cret/x@mlflow', password \"s3 cret/x\" is wrong", uri)
    assert said == "nonnumeric port: '***@mlflow', password \"***\" is wrong"


def test_a_word_of_many_uris_is_no_trouble() -> None:
    urls = ",".join(f"http://host-{number}/x?token=a{number}" for number in range(5000))
    assert "=a" not in redact(urls)
    assert "s3cret" not in redact(f"http://a:80/x,{urls},http://me:s3cret@b")


def test_a_bare_uri_is_one_without_user_and_password() -> None:
    assert bare("https://me:a[b@host:1/x?y=1@2#z") == "https://host:1/x?y=1@2#z"
    assert bare("http://host/me@home") == "http://host/me@home"


@settings(deadline=None)
@given(PASSWORDS | st.just("Qa://bZ"))
def test_no_password_of_a_uri_is_left_whatever_it_is_made_of(password: str) -> None:
    for uri in (f"postgresql://me:{password}@db/x", f"http://me:{password}@host:5000/p?q=1"):
        assert password not in redact(uri)
        assert password not in redact(f"it said: {uri!s}, and ({password})", uri)


TOKEN = 'hf_Qs3"c/ret+Zq9'


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD",
        "MLFLOW_TRACKING_PASSWORD", "MYSQL_PWD", "RAY_AUTH_TOKEN", "FSSPEC_S3_SECRET", "FSSPEC_SFTP_PASSWORD",
    ],
)  # fmt: skip
def test_a_secret_of_the_environment_is_hidden_however_it_is_spelled(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (TOKEN, quote(TOKEN, safe=""), json.dumps(TOKEN)[1:-1], repr(f"\n{TOKEN}")[1:-1]):
        monkeypatch.delenv(name, raising=False)
        assert redact(f"refused {each}.") == f"refused {each}."
        monkeypatch.setenv(name, TOKEN)
        shown = redact(f"refused {each}.")
        assert "***." in shown
        assert "ret" not in shown
        assert redact_uris(f"refused {each}.") == f"refused {each}."


def test_a_password_in_a_uri_of_the_environment_is_hidden_where_it_stands_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.example/simple https://me:Qs3cretZ@b.example/simple")
    assert redact("401 for me with Qs3cretZ, not Qs3cretZone") == "401 for me with ***, not Qs3cretZone"
    assert redact("at=https%3A%2F%2Fme%3AQs3cretZ%40b '\\nQs3cretZ'") == "at=https%3A%2F%2Fme%3A***%40b '\\n***'"


def test_what_is_no_secret_of_the_environment_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "id").touch()
    for name, value in (
        ("TOKENIZERS_PARALLELISM", "tokenizers"), ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("RAY_AUTH_MODE", "disabled"),
        ("MY_SSH_KEY", str(tmp_path / "id")), ("OLDPWD", str(tmp_path)), ("AWS_SECRET_ACCESS_KEY", "test"),
        ("MY_TOKEN", ""), ("KEYBOARD", "qwertyuiop"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
        assert redact(f"a {value} b") == f"a {value} b"
