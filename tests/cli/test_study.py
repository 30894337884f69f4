"""`sweep init` writes a study that runs at once; `sweep stages` and `sweep schema` say what can be written in one."""

from __future__ import annotations

import json
import os
import re
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


OWN = {
    "mine.py": "def train(lr: float, steps: int = 3) -> dict[str, float]:\n    '''Train [bold] it.'''\n",
    "mine.yaml": "name: mine\nquestion: Who?\naxes: {lr: [1, 2]}\n"
    "stages: {train: {stage: 'mine:train', config: {lr: $lr, nonsense: 1}}}\n",
}


def test_stages_are_listed_by_family_and_one_of_them_in_full(tmp_path: Path) -> None:
    listed = ran(tmp_path, "stages")
    families = [line for line in listed.splitlines() if line and not line.startswith(" ")]
    assert families[:2] == ["data", "language_models"]
    assert re.search(r"^  sft +model +Fine-tune `policy` with TRL", listed, re.MULTILINE)
    whole = ran(tmp_path, "stages", "sft")
    for line in ("makes: model", "  policy: model", "  lora: Lora | null = null", "  r: int ≥ 1 = 32"):
        assert line in whole.splitlines()
    assert "None trains all weights." in whole
    unknown = sweep(tmp_path, "stages", "sfft")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "there is no stage 'sfft'; did you mean 'sft'?" in unknown.stderr


def test_functions_are_described_where_they_are_and_with_the_sweep_that_names_them(tmp_path: Path) -> None:
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    described = json.loads(ran(tmp_path, "stages", "mine:train", "--json"))
    assert (described["summary"], described["metrics_of"]) == ("Train [bold] it.", "run")
    assert described["config"]["properties"]["steps"]["default"] == 3
    # What else is wrong with the sweep does not matter.
    listed = json.loads(ran(tmp_path, "stages", "--sweep", "mine.yaml", "--json"))
    assert listed[-1] == described
    assert "Train [bold] it." in ran(tmp_path, "stages", "--sweep", "mine.yaml", "mine:train")
    assert "did you mean 'train'?" in sweep(tmp_path, "stages", "mine:trian").stderr


def test_the_schema_of_a_sweep_knows_its_functions(tmp_path: Path) -> None:
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    schema = json.loads(ran(tmp_path, "schema", "mine.yaml"))
    assert set(schema["$defs"]["config.Config_of_mine_train"]["properties"]) == {"lr", "steps"}
    assert "stage.sft" in schema["$defs"]
    (tmp_path / "mine.py").write_text("def train(lr): ...\n")
    done = sweep(tmp_path, "schema", "mine.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "mine.yaml:4: stages.train.stage: parameter 'lr' of mine:train has no type" in done.stderr
