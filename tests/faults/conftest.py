"""Fixtures of the fault tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
import toy_sweep
from long_sweep import LONG, calm_table
from proxy import Proxy


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The table of `LONG` when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("calm") / "long"
    table = calm_table(folder, LONG)
    shutil.rmtree(folder)
    return table


@pytest.fixture(scope="session")
def calm_toy(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The table of the toy sweep when nothing goes wrong."""
    return calm_table(tmp_path_factory.mktemp("calm") / "toy", toy_sweep.SWEEP)


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the object store, for whoever opens it from now on."""
    import s3fs

    proxy = Proxy(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.uri)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield proxy
    proxy.close()
    s3fs.S3FileSystem.clear_instance_cache()
