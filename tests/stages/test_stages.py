"""The table of stages: light, and stages that know nothing of each other."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import workers
from workers.stage import Stage, join_tables
from workers.stages import STAGES

FOLDER = Path(workers.__file__).parent


def test_no_module_of_workers_imports_the_module_of_a_stage() -> None:
    functions = [name for stage in STAGES.values() for name in (stage.function, stage.together) if name]
    modules = {function.partition(":")[0] for function in functions}
    found = []
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{name}" for name in names)]
            found += [f"{file.relative_to(FOLDER)} imports {name}" for name in names if name in modules]
    assert found == []


@pytest.mark.parametrize("module", ["workers.stages", "workers.device", "workers.model_cache"])
def test_what_the_orchestrator_imports_is_light(module: str) -> None:
    heavy = ["torch", "transformers", "trl", "lightgbm", "sklearn", "ray", "mlflow"]
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_function_of_the_table_is_there(stage: Stage) -> None:
    for named in filter(None, (stage.function, stage.together)):
        module, _, function = named.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_two_stages_of_one_name_are_an_error_that_names_both_functions() -> None:
    stage = STAGES["generate"]
    with pytest.raises(ValueError, match=r"two stages are called 'generate': .*:generate and .*:generate"):
        join_tables({"generate": stage}, {"generate": stage})
