"""The name of a new study's sweep is that of its folder, as far as it can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweep.load import load_sweep
from orchestrator.sweep.new_study import sweep_name, write_study


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my-study", "my-study"),
        ("Étude 1", "Etude-1"),
        ("a/../b", "b"),
        ("…", "my-study"),
        (".x", "x"),
        ("研究", "my-study"),
    ],
)
def test_what_a_name_cannot_have_is_replaced(tmp_path: Path, folder: str, name: str) -> None:
    assert sweep_name(tmp_path / folder) == name


@pytest.mark.parametrize("name", ["true", "1e5", "0x", "null", "x" * 200])
def test_the_name_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    assert write_study(tmp_path / name) == load_sweep(tmp_path / name / "sweep.yaml").name == name[:100]
