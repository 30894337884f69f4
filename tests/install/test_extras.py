"""What everybody installs is enough for a study; who lacks the rest is told what to install."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
import toy_sweep
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = ("orchestrator", "workers", "dashboards")

#: Module that we import -> the package that brings it, since they are made for each other.
BROUGHT_BY = {
    "aiohttp": "ray",
    "fsspec": "universal-pathlib",
    "matplotlib": "mlflow",
    "mlflow": "mlflow",
    "pydantic_core": "pydantic",
    "sqlalchemy": "mlflow",
    "urllib3": "mlflow",
}

#: Runs commands of `sweep` one after another where the modules of all extras cannot be imported.
WITHOUT_EXTRAS = """
import contextlib, sys
sys.modules.update(dict.fromkeys(("streamlit", "plotly", "altair", "vl_convert", "s3fs", "cmaes", "optuna_dashboard")))
from orchestrator.cli import main
for command in sys.argv[1:]:
    sys.argv = ["sweep", *command.split()]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    print(f"exit code {code}", flush=True)
"""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def without_extras(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT / "tests"), "TOY_TRACE": str(folder / "trace"), "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *commands], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_what_is_imported_comes_with_a_dependency_and_that_of_a_page_with_its_extra() -> None:
    graph = grimp.build_graph(*OURS, include_external_packages=True)
    packages, everybody = packages_distributions(), names(PROJECT["dependencies"])
    others: dict[str, set[str]] = {}
    for module in graph.modules - sys.stdlib_module_names:
        package = canonicalize_name(BROUGHT_BY.get(module) or packages.get(module, [module])[0])
        if module.partition(".")[0] not in OURS and package not in everybody:
            importers = graph.find_modules_that_directly_import(module)
            others[package] = {".".join(each.split(".")[:2]) for each in importers}
    # vLLM has an environment of its own.
    assert others.pop("vllm") == {"workers.language_models"}
    rooms = {"live": {"dashboards.live"}, "report": {"dashboards.report"}}
    assert others == {package: room for extra, room in rooms.items() for package in names(EXTRAS[extra])}


def test_one_extra_has_all_the_others_and_whoever_changes_the_code_has_it() -> None:
    everything = Requirement(*EXTRAS["all"])
    assert everything.extras == EXTRAS.keys() - {"all", "dev"}
    assert "alignment-sweeps[all]" in EXTRAS["dev"]


def test_a_study_needs_no_extra(tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path)
    commands = ("plan", "run --inline", "status", "results", "results --cells", "compare", "sync", "verify")
    words = [f"{first} toy.yaml {' '.join(rest)}" for first, *rest in map(str.split, commands)]
    done = without_extras(tmp_path, *words)
    assert done.stdout.count("exit code 0") == len(words), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("report toy.yaml", "sweep report: altair and vl_convert are not installed; INSTALL[report]'"),
        ("dashboard toy.yaml", "sweep dashboard: streamlit and plotly are not installed; INSTALL[live]'"),
        (
            "plan toy.yaml --outputs s3://a/b",
            "--outputs: 's3://a/b' cannot be opened: s3fs is not installed; INSTALL[s3]'",
        ),
        ("plan toy.yaml --store s3://a/b", "the store s3://a/b cannot be opened: s3fs is not installed; INSTALL[s3]'"),
    ],
)
def test_a_command_that_lacks_an_extra_is_one_line_with_the_remedy(tmp_path: Path, command: str, message: str) -> None:
    toy_sweep.write_sweep(tmp_path)
    done = without_extras(tmp_path, command)
    assert done.stdout == "exit code 2\n"
    expected = message.replace("INSTALL", "pip install 'alignment-sweeps")
    assert done.stderr.removesuffix("1 mistake; nothing was run\n") == f"{expected}\n"
