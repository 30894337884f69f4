"""Functions of a study of somebody's own: run, told apart, noticed when they change, on whatever runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_server import sweep

from orchestrator import open_sweep, read_results

SHEBANG = "#!/usr/bin/env -S python -m orchestrator run\n"
#: Twelve cells, of fifteen steps.
SWEEP = """\
name: own
question: Which learning rate?
axes: {lr: [0.1, 0.01], wd: [0, 0.1], seed: [0, 1, 2]}
stages:
  draw: {stage: "stages:draw", config: {seed: $seed}}
  train: {stage: "train_it:train", inputs: {data: draw}, config: {lr: $lr, wd: $wd}}
tracking: false
"""
DRAW = """\
from pathlib import Path
def draw(seed: int, out: Path) -> None:
    (out / "number.txt").write_text(str(seed))
"""
TRAIN = """\
from pathlib import Path
from typing import TypedDict
from helper import loss
class Metrics(TypedDict):
    loss: float
def train(lr: float, wd: float, data: Path) -> Metrics:
    return {"loss": loss(lr, wd) + float((data / "number.txt").read_text())}
"""
HELPER = """\
def loss(lr, wd):
    return lr + wd
"""
FILES = {"stages.py": DRAW, "train_it.py": TRAIN, "helper.py": HELPER}
LOSSES = [lr + wd + seed for lr in (0.1, 0.01) for wd in (0, 0.1) for seed in (0, 1, 2)]


def study(folder: Path, text: str = SWEEP, **files: str) -> Path:
    """Write a study; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, "sweep.yaml": SHEBANG + text, **files}.items():
        (folder / name).write_text(content)
    (folder / "sweep.yaml").chmod(0o755)
    return folder


def run(folder: Path, *options: str, file: str = "sweep.yaml") -> str:
    done = sweep(folder, "run", file, "--inline", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def to_run(folder: Path, *options: str) -> dict[str, int]:
    done = sweep(folder, "plan", "sweep.yaml", "--json", *options)
    assert done.returncode == 0, done.stderr
    return {name: each["to_run"] for name, each in json.loads(done.stdout)["steps"].items()}


def losses(outputs: Path, name: str = "own") -> list[float]:
    return read_results(outputs / "sweeps" / name)["loss"].to_pylist()


def test_plain_functions_run_and_have_nothing_to_do_afterwards(tmp_path: Path) -> None:
    folder = study(tmp_path)
    assert to_run(folder) == {"draw": 3, "train": 12}
    run(folder)
    assert losses(folder / "outputs") == pytest.approx(LOSSES)
    assert "nothing to do: all 12 cells are finished" in run(folder)
    assert {each.name for each in (folder / "outputs/store/artifacts").iterdir()} == {"stages.draw", "train_it.train"}


def test_an_edited_function_or_helper_is_run_again_and_so_is_one_with_another_comment(tmp_path: Path) -> None:
    folder = study(tmp_path)
    run(folder)
    for name, expected in (
        ("train_it.py", {"draw": 0, "train": 12}),
        ("helper.py", {"draw": 0, "train": 12}),
        ("stages.py", {"draw": 3, "train": 12}),
    ):
        study(folder, **{name: FILES[name] + "# A comment.\n"})
        assert to_run(folder) == expected, name
    explained = sweep(folder, "plan", "sweep.yaml").stdout
    assert "draw 3: its code was edited" in explained
    study(folder, **{"helper.py": HELPER.replace("lr + wd", "lr - wd")})
    run(folder)
    assert losses(folder / "outputs")[3] == pytest.approx(0.1 - 0.1)


VERSIONED = SWEEP.replace('"train_it:train"', '"train_it:train", version: 1').replace("axes:", "namespace: me\naxes:")


def test_of_a_function_with_a_version_other_code_is_warned_of_and_computes_nothing_again(tmp_path: Path) -> None:
    folder = study(tmp_path, VERSIONED)
    run(folder)
    assert "other code" not in sweep(folder, "status", "sweep.yaml").stdout
    study(folder, VERSIONED, **{"helper.py": HELPER + "# A comment.\n"})
    assert to_run(folder) == {"draw": 0, "train": 0}
    for command in ("plan", "status", "run"):
        said = sweep(folder, command, "sweep.yaml").stdout
        # A terminal folds the line.
        assert "12 committed steps of version 1 were made by other code than" in " ".join(said.split()), command
        assert "sweep adopt sweep.yaml train_it.train --from-version 1" in " ".join(said.split())
    found = json.loads(sweep(folder, "plan", "sweep.yaml", "--json").stdout)["other_code"]
    assert [(each["entry"], each["steps"]) for each in found] == [("train", 12)]
    raised = VERSIONED.replace("version: 1", "version: 2")
    study(folder, raised, **{"helper.py": HELPER + "# A comment.\n"})
    assert to_run(folder) == {"draw": 0, "train": 12}
    adopted = sweep(folder, "adopt", "sweep.yaml", "train_it.train", "--from-version", "1", "--yes")
    assert adopted.returncode == 0, adopted.stdout + adopted.stderr
    assert to_run(folder) == {"draw": 0, "train": 0}
    assert "other code" not in sweep(folder, "status", "sweep.yaml").stdout


def test_what_an_edit_did_not_change_is_kept_and_so_it_is_when_a_function_gets_a_version(tmp_path: Path) -> None:
    folder = study(tmp_path)
    assert "the store has nothing that other source of your stages made" in sweep(
        folder, "adopt", "sweep.yaml", "--edited"
    ).stderr  # fmt: skip
    run(folder)
    commented = {name: text + "# A comment.\n" for name, text in FILES.items()}
    study(folder, **commented)
    assert to_run(folder) == {"draw": 3, "train": 12}
    adopted = sweep(folder, "adopt", "sweep.yaml", "--edited", "--yes")
    assert adopted.returncode == 0, adopted.stdout + adopted.stderr
    assert "before stages.draw, train_it.train changed: 15 artifacts were adopted" in " ".join(adopted.stdout.split())
    assert to_run(folder) == {"draw": 0, "train": 0}
    study(folder, VERSIONED, **commented)
    assert to_run(folder) == {"draw": 3, "train": 12}
    assert sweep(folder, "adopt", "sweep.yaml", "--edited", "--yes").returncode == 0
    assert to_run(folder) == {"draw": 0, "train": 0}
    study(folder, **{**commented, "helper.py": HELPER.replace("lr + wd", "lr - wd")})
    assert to_run(folder) == {"draw": 0, "train": 12}
    refused = sweep(folder, "adopt", "sweep.yaml", "--edited", "--yes")
    assert (refused.returncode, "the output is not the same" in " ".join(refused.stdout.split())) == (1, True)


def test_a_version_without_a_name_of_the_study_is_a_mistake(tmp_path: Path) -> None:
    folder = study(tmp_path, VERSIONED.replace("namespace: me\n", ""))
    said = sweep(folder, "plan", "sweep.yaml").stderr
    assert "sweep.yaml:7: stages.train.stage: stage 'train_it:train' has a version" in said
    assert "write e.g. `namespace: my-study`" in said


def test_two_studies_with_the_same_names_share_one_store_and_one_process_without_mixing(tmp_path: Path) -> None:
    outputs = tmp_path / "out"
    texts = {name: VERSIONED.replace("namespace: me", f"namespace: {name}") for name in ("one", "other")}
    for factor, (name, text) in enumerate(texts.items(), start=1):
        study(tmp_path / name, text.replace("name: own", f"name: {name}"),
              **{"helper.py": HELPER.replace("lr + wd", f"{factor} * (lr + wd)")})  # fmt: skip
    sweeps = {name: open_sweep(tmp_path / name / "sweep.yaml", outputs=outputs) for name in texts}
    for each in (*sweeps.values(), *sweeps.values()):
        # By turns, so that each finds the modules of the other in its way.
        assert each.run(inline=True, max_cells=6).cells
    assert all(each.run(inline=True).finished for each in sweeps.values())
    plain = [lr + wd for lr in (0.1, 0.01) for wd in (0, 0.1) for _ in range(3)]
    seeds = [0, 1, 2] * 4
    for factor, name in enumerate(texts, start=1):
        expected = [factor * value + seed for value, seed in zip(plain, seeds, strict=True)]
        assert losses(outputs, name) == pytest.approx(expected)
    told = sweep(tmp_path, "gc", "one/sweep.yaml", "other/sweep.yaml", "--outputs", str(outputs))
    assert "nothing to delete" in told.stdout
    assert len(list((outputs / "store/artifacts/stages.draw").iterdir())) == 6
    assert len(list((outputs / "store/artifacts/train_it.train").iterdir())) == 24


UNDECLARED = TRAIN.replace("class Metrics(TypedDict):\n    loss: float\n", "").replace(" -> Metrics", "")


def test_metrics_that_nobody_declared_become_columns_and_what_must_know_them_before_refuses(tmp_path: Path) -> None:
    folder = study(tmp_path, **{"train_it.py": UNDECLARED})
    said = sweep(folder, "plan", "sweep.yaml", "-s", "summary.metrics=[loss]").stderr
    assert "summary.metrics: names metrics of 'train', whose metrics are not declared" in said
    assert "write stages.train.metrics: [NAME, …], or have it return a TypedDict" in said
    assert "results: reports others beside 'train'" in sweep(
        folder, "plan", "sweep.yaml", "-s", "results=[draw, train]"
    ).stderr  # fmt: skip
    assert "loss" in run(folder)
    assert losses(folder / "outputs") == pytest.approx(LOSSES)
    declared = SWEEP.replace('"train_it:train"', '"train_it:train", metrics: [loss]') + "summary: {metrics: [loss]}\n"
    assert "nothing to do" in run(study(folder, declared, **{"train_it.py": UNDECLARED}))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'lr': 1.0}", "metric 'lr' has the name of an axis"),
        ("{'Status': 1.0}", "metric 'Status' has the name of a column of the results"),
        ("{'a loss': 1.0}", "'a loss' cannot name a metric: use letters, digits and _"),
        ("{'loss': float('nan')}", "metric 'loss' is nan, expected a finite number"),
        ("{'loss': 'small'}", "metric 'loss' is 'small', expected a number"),
        ("[1.0]", "the stage returned list, expected a mapping of metrics"),
    ],
)
def test_what_is_no_column_of_a_table_is_rejected(tmp_path: Path, returned: str, message: str) -> None:
    bad = f"def train(lr: float, wd: float):\n    return {returned}\n"
    text = SWEEP.replace("inputs: {data: draw}, ", "").replace("wd: $wd}", "wd: $wd, seed: $seed}")
    text = text.replace('  draw: {stage: "stages:draw", config: {seed: $seed}}\n', "")
    folder = study(tmp_path, text, **{"train_it.py": bad.replace("wd: float", "wd: float, seed: int")})
    done = sweep(folder, "run", "sweep.yaml", "--inline", "--max-cells", "1")
    assert done.returncode == 1
    assert message in " ".join(done.stdout.split())


def test_what_a_stage_leaves_beside_the_files_that_it_declares_is_not_kept(tmp_path: Path) -> None:
    table = """\
from workers.config import Config
from workers.stage import Stage
class Empty(Config):
    seed: int
def draw(config, out):
    for name in ("kept.json", "left.tmp", "deep/left.txt", "model/weights.bin"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(name)
    return {}
STAGES = {"draw": Stage("stages:draw", None, Empty, "number", files=("*.json", "model"))}
"""
    text = "uses: [stages]\n" + SWEEP.replace('stage: "stages:draw", ', "").partition("  train")[0]
    text = text.replace("lr: [0.1, 0.01], wd: [0, 0.1], ", "") + "tracking: false\n"
    folder = study(tmp_path, text, **{"stages.py": table})
    run(folder)
    (artifact, *_) = (folder / "outputs/store/artifacts/draw").iterdir()
    names = {str(path.relative_to(artifact)) for path in artifact.rglob("*") if path.is_file()}
    assert names == {"kept.json", "model/weights.bin", "manifest.json"}
    study(folder, text, **{"stages.py": table.replace('"*.json"', '"*.npy"')})
    done = sweep(folder, "run", "sweep.yaml", "--inline", "--max-cells", "1")
    assert "the stage declares the file '*.npy', but did not write it" in " ".join(done.stdout.split())


def test_planning_imports_nothing_that_a_module_of_functions_imports(tmp_path: Path) -> None:
    unimportable = "import nothing_of_the_kind\n"
    folder = study(tmp_path, **{name: unimportable + text for name, text in FILES.items()})
    assert to_run(folder) == {"draw": 3, "train": 12}
    assert sweep(folder, "status", "sweep.yaml").returncode == 0
    done = sweep(folder, "run", "sweep.yaml", "--inline", "--max-cells", "1")
    assert "No module named 'nothing_of_the_kind'" in done.stdout


@pytest.mark.ray
def test_workers_run_a_copy_of_the_folder_that_is_made_when_the_run_begins(tmp_path: Path, local_ray: None) -> None:
    waits = "import time\n" + TRAIN.replace("    return", "    time.sleep(1)\n    from late import ADD\n    return")
    folder = study(tmp_path, **{"train_it.py": waits.replace("loss(lr, wd) +", "loss(lr, wd) + ADD +"),
                                "late.py": "ADD = 0\n"})  # fmt: skip
    edited = folder / "helper.py"

    def edit(_: object) -> None:
        edited.write_text("raise RuntimeError('edited while the sweep runs')\n")
        (folder / "late.py").write_text("ADD = 1000\n")

    result = open_sweep(folder / "sweep.yaml", outputs=folder / "outputs").run(on_progress=edit)
    assert result.finished, result
    assert losses(folder / "outputs") == pytest.approx(LOSSES)


def test_a_folder_without_this_package_is_a_job_of_a_cluster(
    tmp_path: Path, head: str, head_environment: dict[str, str]
) -> None:
    """The user's own command, from the user's own folder."""
    folder, outputs = study(tmp_path / "study"), tmp_path / "out"
    variables = json.dumps({"env_vars": {"SWEEP_OUTPUTS": str(outputs)}})
    command = ["ray", "job", "submit", "--address", head, "--working-dir", ".", "--runtime-env-json", variables]
    environment = {name: value for name, value in head_environment.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "--", "./sweep.yaml"], cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(outputs) == pytest.approx(LOSSES)
    again = subprocess.run(
        [sys.executable, "-m", "orchestrator", "submit", "sweep.yaml", "--address", head, "--outputs", str(outputs)],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do: all 12 cells are finished" in again.stdout
