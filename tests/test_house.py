"""The plan of the house: no room is too large, none reaches into one above it or round in a circle, few catch everything."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "workers", "dashboards")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def test_no_file_has_more_than_400_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_folder_has_more_than_20_files() -> None:
    counts = Counter(path.parent for path in FILES)
    assert {str(folder): count for folder, count in counts.items() if count > 20} == {}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph(*PACKAGES)
    try:
        TopologicalSorter(
            {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        ).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


#: Who may catch whatever is raised, and why.
CATCHES_ALL = {
    "orchestrator/attempt/attempt.py": "what a stage raises is the outcome of its step",
}


def test_only_borders_catch_everything_that_is_raised() -> None:
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
                if node.type is None or names & {"Exception", "BaseException"}:
                    found.add(str(path.relative_to(ROOT)))
    assert found == set(CATCHES_ALL)
