"""Python interpreters of other environments, made in a moment: they borrow packages one by one."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from functools import cache
from pathlib import Path

#: What a process of another interpreter imports before its first step.
START = ("threadpoolctl", "orchestrator.run.executors.child_main")


@cache
def needed(modules: tuple[str, ...] = START) -> list[Path]:
    """The files and folders of installed packages that some modules import."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = sorted({name.partition(".")[0] for name in json.loads(shown) if not name.startswith("_")})
    packages = Path(sysconfig.get_path("purelib"))
    beside = [f"{name}{end}" for name in names for end in ("", ".py", ".libs")]
    return [packages / name for name in beside if (packages / name).exists()]


def make_interpreter(folder: Path, packages: list[Path] | None = None) -> str:
    """An interpreter with a prefix of its own, and what steps need or the packages that are named."""
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for path in needed() if packages is None else packages:
        (folder / "lib" / version / "site-packages" / path.name).symlink_to(path)
    return str(folder / "bin" / "python")
