"""A command imports what it needs, once it needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWEEP = "sweeps/quickstart.yaml"

#: Runs commands one after another; after each, a line of JSON has its exit code and the libraries that are there.
COMMANDS = """
import contextlib, io, json, sys
from orchestrator.cli import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["sweep", *command]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, [name for name in sys.modules if "." not in name]]))
"""

HEAVY = {"torch", "transformers", "trl", "peft", "lightgbm", "sklearn", "datasets", "ray", "mlflow", "streamlit"}


def test_a_help_reads_no_sweep_and_no_command_imports_what_only_steps_need_before_any_is_run(tmp_path: Path) -> None:
    outputs = ["--outputs", str(tmp_path)]
    commands = [
        ["--help"],
        ["--version"],
        ["plan", SWEEP, *outputs],
        ["status", SWEEP, *outputs],
        ["status", SWEEP, *outputs, "--json"],
        # As far as a job server, which there is not.
        ["submit", SWEEP, *outputs, "--address", "http://127.0.0.1:1"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, _ in answers] == [0, 0, 0, 0, 0, 2], done.stderr
    assert "no job server answers" in done.stderr
    for _, modules in answers[:2]:
        assert not {"numpy", "pydantic", "yaml"} & set(modules)
    assert "numpy" in answers[2][1]
    assert HEAVY & set(answers[-1][1]) == set()
