"""What `pip install` of the wheel leaves on a machine without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from servers import put_mlflow_database

from orchestrator.sweep.new_study import TEMPLATE

ROOT = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "workers", "dashboards")


#: A study of somebody else: a module of stages beside a sweep that uses it.
STAGES = """
from workers.config import Config
from workers.stage import Input, Stage

class NumberConfig(Config):
    number: float
    def metrics(self):
        return ("square",)

def square(config, out):
    (out / "number.txt").write_text(str(config.number))
    return {"square": config.number**2}

STAGES = {"square": Stage("own_stages:square", 1, NumberConfig, "number")}
"""
SWEEP = """
name: squares
question: Does it run where only the wheel is installed?
uses: [own_stages]
namespace: squares
axes: {number: [1, 2, 3]}
stages:
  square: {config: {number: $number}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed wheel; made from a copy, so that the checkout stays as it is."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_the_wheel_holds_every_module_and_what_the_dashboards_and_new_studies_are_made_from(installed: Path) -> None:
    modules = {path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    folders = (ROOT / "dashboards", TEMPLATE)
    data = {path.relative_to(ROOT) for folder in folders for path in folder.iterdir() if path.is_file()}
    files = (path for path in installed.rglob("*") if path.is_file() and path.suffix != ".pyc")
    found = {path.relative_to(installed) for path in files}
    assert {path for path in found if path.parts[0] in PACKAGES} == modules | data


def test_an_installed_command_can_tell_mlflow_from_any_folder(installed: Path, tmp_path: Path) -> None:
    code = f"""
import sys
import dashboards.report.write, orchestrator.run.executors.inline
import orchestrator.store.objects, orchestrator.tracking.sync
ours = [each for name, each in sys.modules.items() if name.partition(".")[0] in {PACKAGES}]
# Where they were installed for development, a finder would fetch from there what the wheel lacks.
elsewhere = [each.__file__ for each in ours if not each.__file__.startswith({str(installed)!r})]
assert not elsewhere, elsewhere
sys.argv = ["sweep", "sync", "--help"]
from orchestrator.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--tracking-uri" in done.stdout


@pytest.mark.mlflow
def test_a_study_of_somebody_else_runs_and_is_told_to_mlflow_without_a_checkout(
    installed: Path, tmp_path: Path
) -> None:
    # Packages on PYTHONPATH are as good as installed, but there no finder leads to a checkout.
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path}
    study = tmp_path / "study"
    study.mkdir()
    (study / "own_stages.py").write_text(STAGES)
    (study / "squares.yaml").write_text(SWEEP)
    # No module in a study's folder is meant for us, nor for the process that tells MLflow.
    (study / "queue.py").write_text("raise AssertionError('nobody asked for this')\n")
    put_mlflow_database(study / "outputs" / "mlflow.db")

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [python, *arguments], cwd=study, env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = command("-P", "-c", "import orchestrator, workers; print(orchestrator.__file__, workers.__file__)")
    assert where.split() == [str(installed / name / "__init__.py") for name in ("orchestrator", "workers")]
    sweep = str(installed / "bin" / "sweep")
    assert command(sweep, "--version").startswith("alignment-sweeps 0.1.0 (source-")
    assert "MLflow: " in command(sweep, "run", "squares.yaml", "--inline")
    assert "MLflow: 0 runs written, 0 replaced, 3 unchanged" in command(sweep, "sync", "squares.yaml")
