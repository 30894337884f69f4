"""What a sweep can name: stages of this package, of modules that it uses, of installed packages, and functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_sweep

from orchestrator.plan.build import build_plan
from orchestrator.session import open_session
from orchestrator.study import StageError
from orchestrator.study.modules import study_at
from orchestrator.study.table import StageTable
from orchestrator.sweep.load import draft_sweep
from orchestrator.sweep.problems import SweepError
from workers.stage import Stage

TABLE = """\
from workers.config import Config
from workers.stage import Input, Stage
class Plain(Config):
    x: int
STAGES = {
    "plain": Stage("work_it:plain", %s, Plain, "number"),
    "fed": Stage("work_it:fed", 1, Plain, "sum", {"it": Input("number")}),
}
"""
WORK = """\
def plain(config, out):
    return {}
def fed(config, out, *, it):
    return {}
"""
SWEEP = """\
name: tables
question: What is there?
axes: {x: [1, 2]}
stages:
  plain: {config: {x: $x}}
tracking: false
"""


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def identity(folder: Path, text: str) -> dict[str, object]:
    import json

    plan = open_session(toy_sweep.write_sweep(folder, text, "own.yaml")).plan
    return json.loads(plan.step(0).identity)  # type: ignore[no-any-return]


def test_the_key_of_a_stage_that_is_not_ours_names_where_it_comes_from(tmp_path: Path) -> None:
    write(tmp_path, own_stages=TABLE % "None", work_it=WORK)
    found = identity(tmp_path, SWEEP + "uses: [own_stages]\n")
    assert found == {
        "config": {"x": 1}, "function": "work_it:plain", "inputs": {}, "namespace": "", "source": found["source"],
        "stage": "plain",
    }  # fmt: skip
    write(tmp_path, own_stages=TABLE % "3")
    found = identity(tmp_path, SWEEP + "uses: [own_stages]\nnamespace: mine\n")
    assert (found["namespace"], found["version"], "source" in found) == ("mine", 3, False)


def test_an_installed_package_is_asked_for_a_name_that_nothing_else_has(tmp_path: Path) -> None:
    """A real distribution: a folder on the path with its metadata beside it."""
    write(
        tmp_path / "site/their_stages", __init__=TABLE.replace("work_it:", "their_stages.work_it:") % "7", work_it=WORK
    )
    metadata = tmp_path / "site/their_stages-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-stages\nVersion: 1.0\n")
    (metadata / "top_level.txt").write_text("their_stages\n")
    (metadata / "entry_points.txt").write_text("[alignment_sweeps.stages]\ntheirs = their_stages\n")
    (tmp_path / "study").mkdir()
    path = toy_sweep.write_sweep(tmp_path / "study", SWEEP, "own.yaml")
    code = (
        "import sys, json; from pathlib import Path; from orchestrator.session import open_session\n"
        "plan = open_session(Path(sys.argv[1])).plan\n"
        "step = plan.step(0)\n"
        "print(json.loads(step.identity)['namespace'], step.address.stage, 'work_it' in str(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.stdout.split() == ["their-stages", "plain", "False"], done.stderr


def test_installed_packages_are_not_asked_for_names_that_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("importlib.metadata.entry_points", refuse)
    table = StageTable(study_at(tmp_path))
    assert table.stage("prompts").origin is None
    with pytest.raises(AssertionError, match="asked"):
        table.stage("promptz")


@pytest.mark.parametrize(
    ("table", "work", "message"),
    [
        (TABLE % "None", WORK.replace("def plain", "def other"), r"\(.*work_it.py\) has no function 'plain'"),
        (TABLE % "1", WORK, "stage 'plain' has a version, so its artifacts need a name that no other study has"),
        (TABLE % "None", None, "there is no module 'work_it'"),
        (
            (TABLE % "None").replace('"plain":', '"../plain":'),
            WORK,
            r"STAGES\['../plain'\]: a stage is called by letters",
        ),
        (
            (TABLE % "None").replace('"plain":', '"sft":'),
            WORK,
            "two stages are called 'sft': workers.language_models.sft:",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_told_with_its_module_and_stage(
    tmp_path: Path, table: str, work: str | None, message: str
) -> None:
    name = f"own_stages_{abs(hash(message)) % 1000}"
    write(tmp_path, **{name: table}, **({"work_it": work} if work else {}))
    path = toy_sweep.write_sweep(tmp_path, SWEEP + f"uses: [{name}]\n", "own.yaml")
    with pytest.raises(SweepError, match=message):
        build_plan(draft_sweep(path))


def test_an_input_that_the_function_of_a_table_does_not_take_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, own_table=TABLE % "None", work_it=WORK.replace("*, it", "*, others"))
    table = StageTable(study_at(tmp_path), "mine")
    table.use("own_table")
    with pytest.raises(StageError, match="work_it:fed has no parameter 'it' for the input of that name"):
        table.stage("fed")


FUNCTIONS = "from pathlib import Path\ndef first(x: int, out: Path) -> None: ...\ndef second(x: int, data: Path): ...\n"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "{stage: 'own_it:second', config: {x: $x}}",
            "config.data: is missing; feed it an artifact below inputs:, or write",
        ),
        (
            "{stage: 'own_it:second', config: {x: $x, data: a.csv}}",
            r"config.data: a local file is written \{path: a.csv\}",
        ),
        ("{stage: 'own_it:second', inputs: {dta: one}, config: {x: $x}}", "has no input 'dta'"),
        ("{stage: 'own_it:third', config: {x: $x}}", "has no function 'third'; choose from first, second"),
        ("{stage: 'own_itt:first', config: {x: $x}}", "there is no module 'own_itt', neither installed nor in"),
        ("{stage: '__main__:first', config: {x: $x}}", "a stage lies in a module that workers can import"),
        (
            "{stage: 'own_it:second', inputs: {data: one}, config: {x: $x}, metrics: [a b]}",
            "two: cannot return a metric 'a b': use letters",
        ),
        ("{stage: 'own_it:first', config: {x: $x, y: 1}}", "config.y: unknown field"),
        ("{stage: 'own_it:first', config: {x: much}}", "config.x: should be a valid integer"),
        ("{stage: prompts, metrics: [a]}", "stage 'prompts' has its metrics in its table; `metrics:` is for functions"),
        ("{stage: prompts, version: 2}", "stage 'prompts' has its version in its table"),
    ],
)
def test_a_mistake_in_the_use_of_a_function_is_told_where_it_is_written(
    tmp_path: Path, entry: str, message: str
) -> None:
    write(tmp_path, own_it=FUNCTIONS)
    text = SWEEP.replace(
        "plain: {config: {x: $x}}", f"one: {{stage: 'own_it:first', config: {{x: $x}}}}\n  two: {entry}"
    )
    with pytest.raises(SweepError, match=message) as caught:
        open_session(toy_sweep.write_sweep(tmp_path, text, "own.yaml"))
    assert all(problem.place.endswith(":6") for problem in caught.value.problems), caught.value


def test_one_function_stands_in_for_another(tmp_path: Path) -> None:
    write(tmp_path, own_it=FUNCTIONS)
    text = SWEEP.replace("x: [1, 2]", "x: [1, 2], k: {a: {on: true}, b: {on: false}}").replace(
        "plain: {config: {x: $x}}",
        "one: {stage: 'own_it:first', config: {x: $x}}\n"
        "  two: {stage: 'own_it:second', when: $k.on, otherwise: one, inputs: {data: one}, config: {x: $x}}\n"
        "  three: {stage: 'own_it:second', inputs: {data: two}, config: {x: $x}}",
    )
    plan = open_session(toy_sweep.write_sweep(tmp_path, text, "own.yaml")).plan
    # Where `one` stands in, `three` is the same step as `two` where that exists.
    assert len(plan) == 2 + 2 + 2


def test_a_stage_of_this_package_has_no_origin(tmp_path: Path) -> None:
    stage = StageTable(study_at(tmp_path)).stage("prompts")
    assert isinstance(stage, Stage)
    assert stage.origin is None
