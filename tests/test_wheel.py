"""What `pip install` of the wheel leaves on a machine without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.sweep.new_study import TEMPLATE

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "workers", "dashboards")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel; made from a copy, so that the checkout stays as it is."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_module_and_what_the_dashboards_and_new_studies_are_made_from(installed: Path) -> None:
    modules = {path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    folders = (ROOT / "dashboards", TEMPLATE)
    data = {path.relative_to(ROOT) for folder in folders for path in folder.iterdir() if path.is_file()}
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
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
