"""`sweep init` writes a study that runs at once; `sweep stages` and `sweep schema` say what can be written in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from command_server import sweep


def ran(folder: Path, *arguments: str) -> str:
    done = sweep(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def steps(folder: Path) -> dict[str, tuple[int, int]]:
    stages = json.loads(ran(folder, "plan", "sweep.yaml", "--json"))["steps"]
    return {name: (each["committed"], each["to_run"]) for name, each in stages.items()}


def test_a_new_study_runs_at_once_and_what_is_edited_runs_again(tmp_path: Path) -> None:
    said = ran(tmp_path, "init", "first try").splitlines()
    folder = tmp_path / "first try"
    assert [line.strip() for line in said[-2:]] == ["cd 'first try'", "sweep run sweep.yaml --inline"]
    assert len((folder / "README.md").read_text().splitlines()) == 10
    # The sweep is a command of its own.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["./sweep.yaml", "--inline"], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("first-try: ")
    assert json.loads(ran(folder, "status", "sweep.yaml", "--json"))["cells_by_status"]["succeeded"] == 12
    assert steps(folder) == {"data": (3, 0), "train": (12, 0)}
    stages = folder / "stages.py"
    stages.write_text(stages.read_text().replace("weights -= learning_rate", "weights -= 2 * learning_rate"))
    assert steps(folder) == {"data": (0, 3), "train": (0, 12)}


def test_an_empty_folder_or_one_under_git_becomes_a_study_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "2026"
    (folder / ".git").mkdir(parents=True)
    (folder / ".gitignore").write_text("mine\n")
    assert "cd" not in ran(folder, "init", ".")
    assert (folder / ".gitignore").read_text() == "mine\n"
    assert ran(folder, "plan", "sweep.yaml").startswith("2026: ")


def test_a_study_is_not_written_over_anything(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    for name, reason in (("mine", "is not empty (notes.txt)"), ("mine/notes.txt", "is a file")):
        done = sweep(tmp_path, "init", name)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{name}: {reason}; give the name of a new folder")
    assert "cannot be written: Not a directory" in sweep(tmp_path, "init", "mine/notes.txt/deep").stderr
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["notes.txt"]
