"""A study may lie in any folder; only modules of its own that are called like our packages are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import toy_sweep
from command_server import sweep
from toy_requests import make_request

from orchestrator.namesakes import OUR_NAMES, hidden, namesakes
from orchestrator.run.executors.recovery import record_failure
from orchestrator.store.posix import PosixStore
from orchestrator.types import Outcome

ROOT = Path(__file__).parents[1]


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("where", ["beside the sweep", "in the working directory"])
@pytest.mark.parametrize("module", ["workers/__init__.py", "workers/stages.py", "orchestrator.py", "dashboards/own.py"])
def test_a_module_called_like_ours_is_one_mistake_and_nothing_is_run(tmp_path: Path, module: str, where: str) -> None:
    study, here = tmp_path / "study", tmp_path / "here"
    study.mkdir()
    here.mkdir()
    own = (study if where == "beside the sweep" else here) / module
    own.parent.mkdir(exist_ok=True)
    own.write_text("raise AssertionError('nobody asked for this')\n")
    # Among whose own stages: what else is wrong with the file follows from it.
    toy_sweep.write_sweep(study, toy_sweep.SWEEP.replace("uses: [toy]", "uses: [workers.of_mine, toy]"))
    done = sweep(here, "run", "../study/toy.yaml", "--inline")
    name = Path(module).parts[0]
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"{own.parents[len(Path(module).parts) - 1] / name}: has the name of the package "
        f"{name.removesuffix('.py')!r} of alignment-sweeps, and one would hide the other; give yours another name\n"
        "1 mistake; nothing was run\n"
    )
    assert not (here / "outputs").exists()


def test_a_package_of_ours_that_python_does_not_find_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise AssertionError('nobody asked for this')\n")
    toy_sweep.write_sweep(tmp_path)
    done = python(tmp_path, "-m", "orchestrator", "plan", "toy.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"{tmp_path}/workers hides the package 'workers' of alignment-sweeps; give yours another name\n"
    )


def test_a_worker_whose_path_leads_to_a_namesake_says_so(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").touch()
    done = python(tmp_path, "-c", "import orchestrator.run.executors", PYTHONPATH=str(tmp_path))
    last = f"ImportError: {tmp_path}/workers hides the package 'workers' of alignment-sweeps; give yours another name"
    assert done.stderr.splitlines()[-1] == last
    store = PosixStore(tmp_path / "store")
    store.prepare()
    attempt = record_failure(make_request(store), Outcome.FAILED, RuntimeError(done.stderr), 0)
    assert (attempt.error or "").splitlines()[0] == (
        f"a Ray worker could not start the step: {last}; are the packages installed on its node?"
    )


def test_folders_without_python_files_and_this_repository_are_no_namesakes(tmp_path: Path) -> None:
    for name in OUR_NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.json").touch()
        assert hidden(name) is None
    toy_sweep.write_sweep(tmp_path)
    assert sweep(tmp_path, "plan", "toy.yaml").returncode == 0
    assert list(namesakes(tmp_path, ROOT, ROOT / "sweeps")) == []
    # So may another checkout.
    (tmp_path / "other").mkdir()
    for name in OUR_NAMES:
        (tmp_path / "other" / name).symlink_to(ROOT / name)
    assert list(namesakes(tmp_path / "other")) == []


def test_a_sweep_in_the_root_of_this_repository_does_not_own_its_packages(tmp_path: Path) -> None:
    checkout, other = tmp_path / "checkout", tmp_path / "other"
    for folder in (checkout, other):
        folder.mkdir()
        toy_sweep.write_sweep(folder, toy_sweep.ONE.replace("uses: [toy]", "uses: [toy, of_mine]"))
        (folder / "of_mine.py").write_text("STAGES = {}\n")
    for name in OUR_NAMES:
        (checkout / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(checkout), str(ROOT / "tests"), sysconfig.get_path("purelib")])
    # -S: no finder leads to the checkout of this test.
    command = ("-S", "-m", "orchestrator", "gc", "checkout/toy.yaml", "other/toy.yaml")
    done = python(tmp_path, *command, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
