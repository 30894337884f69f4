"""Python interpreters of other environments, made in a moment: they borrow packages one by one."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from functools import cache
from pathlib import Path

#: Prints the packages that a process of another interpreter imports before its first step, and where they lie.
_NEEDED = """
import json, sys
import threadpoolctl
import orchestrator.run.executors.child_main
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@cache
def needed() -> list[Path]:
    """The files and folders of installed packages without which no step can run."""
    shown = subprocess.run([sys.executable, "-c", _NEEDED], capture_output=True, text=True, check=True).stdout
    packages = Path(sysconfig.get_path("purelib"))
    names = [name for name in json.loads(shown) if not name.startswith("_")]
    beside = [f"{name}{end}" for name in names for end in ("", ".py", ".libs")]
    return [packages / name for name in beside if (packages / name).exists()]


def make_interpreter(folder: Path, without: str | None = None, bare: bool = False) -> str:
    """An interpreter with a prefix of its own and what steps need, or all of that but one package, or nothing."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for path in () if bare else needed():
        if path.name != without:
            (packages / path.name).symlink_to(path)
    return str(folder / "bin" / "python")
