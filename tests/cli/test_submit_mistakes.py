"""`sweep submit` tells mistakes before anything is uploaded, each with its remedy."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import toy_sweep
from servers import free_port
from submissions import SWEEP, submit


def refused(folder: Path, *arguments: str, **environment: str) -> str:
    """What is said by a command that submits nothing."""
    code, output = submit(folder, {**os.environ, **environment}, *arguments)
    assert code == 2, output
    assert "Traceback" not in output
    return output


def test_mistakes_are_told_before_anything_is_uploaded(checkout: Path, tmp_path: Path) -> None:
    # Nobody listens there, and nobody is asked.
    address = ["--address", "http://127.0.0.1:1"]
    assert "did you mean 'value'" in refused(checkout, "toy.yaml", "-s", "stages.source.config.valeu=1", *address)
    outside = toy_sweep.write_sweep(tmp_path, SWEEP)
    assert f"lies outside of {checkout}, which is uploaded" in refused(checkout, str(outside), *address)
    relative = "'here' is relative, and a Ray job runs in a copy of the working directory that is thrown away"
    for option in ("--outputs", "--store"):
        assert f"{option}: {relative}" in refused(checkout, "toy.yaml", option, "here", *address)
    assert f"SWEEP_OUTPUTS: {relative}" in refused(checkout, "toy.yaml", *address, SWEEP_OUTPUTS="here")
    uri = "http://me:secret@mlflow:5000"
    for said in (
        refused(checkout, "toy.yaml", "--tracking-uri", uri, *address),
        refused(checkout, "toy.yaml", *address, MLFLOW_TRACKING_URI=uri),
    ):
        assert "a password in a URI would be shown to everybody who reaches the job server" in said
        assert "secret" not in said


def test_data_that_would_not_be_uploaded_and_a_package_that_is_too_large_are_named_with_the_remedy(
    checkout: Path,
) -> None:
    address = ["--address", "http://127.0.0.1:1"]
    (checkout / "data").mkdir()
    (checkout / "data" / "rows.parquet").write_text("some")
    toy_sweep.write_sweep(checkout, SWEEP.replace("axes:", "data: {path: data/rows.parquet}\naxes:", 1))
    said = refused(checkout, "toy.yaml", *address)
    assert "data/rows.parquet: is not uploaded" in said
    assert "absolute path" in said
    toy_sweep.write_sweep(checkout, SWEEP)
    (checkout / "data" / "huge.jsonl").write_bytes(b"0" * 7_000_000)
    said = refused(checkout, "toy.yaml", *address)
    assert re.search(r"a package of [789]\.\d MB for every node, more than 5 MB; exclude .* in \.rayignore", said)
    assert "largest: data/huge.jsonl (7.0 MB), data/ (7.0 MB)" in said


def test_an_address_without_a_job_server_is_one_line_with_the_remedy(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address, said in (
            (f"http://127.0.0.1:{free_port()}", "no job server answers at"),
            (f"http://127.0.0.1:{silent.getsockname()[1]}", "no job server answers at"),
            ("auto", "auto is not the address of a job server"),
            ("", "No Ray job server given: pass --address http://HEAD:8265 or set RAY_ADDRESS"),
        ):
            output = refused(checkout, "toy.yaml", "--address", address)
            assert said in output
            assert "pass --address http://HEAD:8265" in output
            assert len(output.splitlines()) == 1, output


def test_a_server_of_something_else_is_not_taken_for_a_job_server(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "site" / "api").mkdir(parents=True)
    (tmp_path / "site" / "api" / "version").write_text(json.dumps({"version": "of something else"}))
    for site in (tmp_path / "site", tmp_path / "checkout"):
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(site)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.monotonic() + 400
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            output = refused(checkout, "toy.yaml", "--address", f"http://127.0.0.1:{port}")
            assert "answers, but it is not a Ray job server" in output
            assert len(output.splitlines()) == 1, output
        finally:
            server.kill()
            server.wait()


def test_submit_explains_itself_with_an_example(checkout: Path) -> None:
    code, output = submit(checkout, dict(os.environ), "--help")
    assert code == 0
    assert "sweep submit sweeps/full.yaml --address http://HEAD:8265" in " ".join(output.split())
