"""Nothing that must not happen happens in some thousand simulated histories; where it is made to, it is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SIMULATE = Path(__file__).with_name("simulate.py")


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    # Sets are ordered alike in every process.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, str(SIMULATE), *words], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.faults
def test_nothing_that_must_not_happen_does_in_two_thousand_histories() -> None:
    done = simulate("--first", "1", "--count", "2000", "--seconds", "1800", "--json")
    found = json.loads(done.stdout)
    assert found["broken"] == {}, f"make simulate SEED={next(iter(found['broken'].values()))}"
    assert found["enough"] >= 2000


@pytest.mark.faults
def test_one_seed_is_one_history() -> None:
    stories = [simulate("--seed", "4", "--mutation", "all claims are taken for dead").stdout for _ in range(2)]
    assert "MUST NOT HAPPEN" in stories[0]
    assert stories[0] == stories[1]


@pytest.mark.faults
def test_a_history_that_goes_wrong_is_told_with_no_more_than_it_needs() -> None:
    story = simulate("--seed", "4", "--mutation", "SystemExit of a stage that ends its worker").stdout.splitlines()
    assert "SystemExit of a step ends its worker" in story[-1] or "SystemExit" in story[0]
    assert len(story) < 40


@pytest.mark.faults
@pytest.mark.long
def test_each_fault_that_was_put_back_is_found() -> None:
    # From ten seeds on it takes half an hour: decision 18 has that table.
    done = simulate("--mutations", "--starts", "1")
    assert done.returncode == 0, done.stdout
