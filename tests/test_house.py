"""The plan of the house: no room is too large, none imports in a circle, and only borders catch everything."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "workers", "dashboards")


def files_in(*folders: str) -> list[Path]:
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


FILES = files_in(*PACKAGES)
TESTS = files_in("tests")
ALL = [*FILES, *TESTS, *files_in("sweeps")]


def test_no_file_has_more_than_400_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ALL}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_folder_has_more_than_20_files() -> None:
    counts = Counter(path.parent for path in ALL)
    assert {str(folder): count for folder, count in counts.items() if count > 20} == {}


def test_modules_of_tests_have_names_of_their_own() -> None:
    names = Counter(path.stem for path in TESTS if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_file_imports_another() -> None:
    names = {path.stem for path in TESTS if path.name.startswith("test_")}
    found = {
        f"{path.name} imports {module}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _imported(node)
        if module in names
    }
    assert found == set()


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [each.name for each in node.names] if isinstance(node, ast.Import) else []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph(*PACKAGES)
    try:
        TopologicalSorter(
            {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        ).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


#: Who may keep whatever was raised, and what is behind that border.
CATCHES_ALL = {
    "orchestrator/attempt/attempt.py": "a stage: what it raises is the outcome of its step",
    "orchestrator/attempt/bundle.py": "a stage that does several steps together",
    "orchestrator/attempt/outcome.py": "the error of a stage, whose attributes may raise too",
    "orchestrator/attempt/rerun.py": "a stage that is run again: what it raises is a finding",
    "orchestrator/attempt/seal.py": "what a stage put in the place of parts of its process",
    "orchestrator/attempt/stage_call.py": "what a stage returned",
    "orchestrator/doctor/examination.py": "what a probe looks at: whatever goes wrong there is a finding",
    "orchestrator/doctor/race.py": "what threads do at once: it is raised again once they have ended",
    "orchestrator/notebook.py": "what the caller's own function raises: it is raised again once the run has ended",
    "orchestrator/run/executors/child_main.py": "a module of stages that is not ours",
    "orchestrator/run/executors/ray_start.py": "Ray",
    "orchestrator/store/atomic.py": "a file system or an object store",
    "orchestrator/store/object_medium.py": "an object store",
    "orchestrator/study/catalogue.py": "the metrics of a config that is not ours, and lacks fields",
    "orchestrator/study/function_stage.py": "pydantic, on types that are not ours",
    "orchestrator/study/modules.py": "a module of stages that is not ours",
    "orchestrator/tracking/client.py": "MLflow",
    "orchestrator/tracking/server.py": "MLflow's server, in threads",
    "orchestrator/tracking/writer.py": "MLflow, in the process that writes to it",
    "workers/data/rows.py": "the Hub's library",
}


def test_only_borders_keep_everything_that_is_raised() -> None:
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node):
                found.add(str(path.relative_to(ROOT)))
    assert found == set(CATCHES_ALL)


def _is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
    return None in kinds or bool(names & {"Exception", "BaseException"})


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None
