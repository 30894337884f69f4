"""Code that is edited while a sweep runs: steps fail clearly, and results of two codes are never mixed unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
import toy_sweep
from drivers import calls, check, start, wait_for
from long_sweep import calm_table
from toy_runs import command

import workers
from orchestrator.store import open_store
from orchestrator.types import Manifest

pytestmark = pytest.mark.faults


#: A checkout of its own, whose stage of the doubles is a module that is imported when the first of them is computed.
EDITED = """\
import os
import toy
from workers.stage import Input, Stage
double = Stage("workers.doubling:double", 1, toy.TotalConfig, "number", {"number": Input("number")})
STAGES = {**toy.STAGES, "toy_double": double}
def connect():
    from orchestrator.run.executors.ray_start import start_ray
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    start_ray(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
              runtime_env={"env_vars": variables})
"""
DOUBLING = """\
import toy
def double(config, out, *, number):
    return toy.double(config, out, number=number)
"""
SYNTAX_ERROR = DOUBLING.replace("return toy", "return return toy")
ANOTHER_NUMBER = DOUBLING.replace("(config, out, number", "(config.model_copy(update={'add': 1000.0}), out, number")

SLOW_SOURCES = toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: slow}")


class Checkout:
    """A copy of the code that may be edited."""

    def __init__(self, folder: Path, ray: bool) -> None:
        self.folder = folder
        # Of its own: this process imports the module of each checkout, too.
        self.module = f"edited_in_{folder.name}"
        self.path = toy_sweep.write_sweep(folder, SLOW_SOURCES.replace("uses: [toy]", f"uses: [{self.module}]"))
        self.ray = ray
        code, root = folder / "code", Path(toy.__file__).parents[1]
        for package in ("orchestrator", "workers"):
            shutil.copytree(root / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / f"{self.module}.py").write_text(EDITED)
        self.stage = code / "workers" / "doubling.py"
        self.stage.write_text(DOUBLING)
        # A file that is edited twice in one second would be taken from its compiled copy.
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(code), str(Path(toy.__file__).parent), str(folder)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, ray: bool) -> subprocess.Popen[str]:
        line = command(self.folder, self.path, *([] if ray else ["--inline"]))
        connect = f" {self.module}.connect();" if ray else ""
        line[2] = line[2].replace("import toy;", f"import {self.module};{connect}")
        # Python looks first where it was started.
        return start(line, self.folder / "code", **self.environment)

    def run_and_edit(self, content: str) -> tuple[int, str]:
        """Run, and edit the code of the doubles while the first source is computed."""
        driver = self.start(self.ray)
        wait_for(lambda: calls(self.folder), driver)
        self.stage.write_text(content)
        printed, _ = driver.communicate(timeout=400)
        return driver.returncode, printed

    def finish(self) -> None:
        """Undo the edit and give the command again, without Ray to save time."""
        self.stage.write_text(DOUBLING)
        driver = self.start(False)
        printed, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0, printed

    def manifests(self, stage: str) -> list[Manifest]:
        store = open_store(str(self.folder / "out/store"))
        found = store.manifests(list(store.committed([stage])))
        return [each for each in found.values() if isinstance(each, Manifest)]


@pytest.fixture(scope="module")
def calm_slow_sources(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    # Keys name the function, which is another one in a checkout.
    return calm_table(tmp_path_factory.mktemp("calm") / "sources", SLOW_SOURCES).drop_columns(["key"])


@pytest.fixture(autouse=True)
def _stage_is_found_here_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process plans the sweep, and has another copy of the package than the one that is edited."""
    assert workers.__spec__
    places = [*workers.__path__, str(tmp_path / "code" / "workers")]
    monkeypatch.setattr(workers.__spec__, "submodule_search_locations", places)


RAY = pytest.param(True, id="ray", marks=[pytest.mark.ray, pytest.mark.long])
INLINE = pytest.param(False, id="inline")


@pytest.mark.parametrize("ray", [RAY])
@pytest.mark.long
def test_a_syntax_error_made_while_a_sweep_runs_fails_steps_clearly_and_once_undone_the_same_command_finishes(
    tmp_path: Path, calm_slow_sources: pa.Table, ray: bool
) -> None:
    checkout = Checkout(tmp_path, ray)
    code, printed = checkout.run_and_edit(SYNTAX_ERROR)
    assert code == 1, printed
    rows = pq.read_table(tmp_path / "out/sweeps/toy/results.parquet").to_pylist()
    assert len(rows) == 6
    # A worker that notices the edit before it falls over it would be as clear.
    words = {"SyntaxError": "doubling.py", "CodeChangedError": "code changed"}
    assert all(words[row["error_class"]] in row["error"] for row in rows)
    assert all(words[row["error_class"]] in Path(row["log"]).read_text() for row in rows)
    assert not checkout.manifests("toy_double")
    before, kept = calls(tmp_path), len(checkout.manifests("toy_source"))
    checkout.finish()
    assert calls(tmp_path) == before + 18 - kept
    check(tmp_path, calm_slow_sources)


@pytest.mark.parametrize("ray", [RAY, INLINE])
def test_results_of_code_that_was_edited_while_a_sweep_runs_are_never_mixed_in_unseen(
    tmp_path: Path, calm_slow_sources: pa.Table, ray: bool
) -> None:
    checkout = Checkout(tmp_path, ray)
    code, printed = checkout.run_and_edit(ANOTHER_NUMBER)
    doubles = checkout.manifests("toy_double")
    edited = {each.code_commit for each in doubles if each.metrics["total"] > 500}
    original = {each.code_commit for each in [*checkout.manifests("toy_source"), *doubles] if each.address not in
                {other.address for other in doubles if other.metrics["total"] > 500}}  # fmt: skip
    assert original
    # Either nothing was computed by the other code, or the manifests tell which.
    assert not edited & original, printed
    if not edited:
        assert code in (0, 1), printed
        checkout.finish()
        check(tmp_path, calm_slow_sources)
