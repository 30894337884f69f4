"""Runs `sweep` commands, each in a process of its own that has imported everything already.

Of a command that is started afresh, the imports take a second and the rest a tenth of it. So this process imports once,
and is forked for every command, which from there on is a process like any other: its folder, environment, output and
end are its own. `python command_server.py` reads requests as lines of JSON and answers each with its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

#: Seconds after which a command is ended; none takes that long.
PATIENCE = 400


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `sweep` with these arguments in a folder, knowing the toy stages; returns when it has ended."""
    server = _server()
    assert server.stdin
    assert server.stdout
    with tempfile.TemporaryDirectory(prefix="command-") as place:
        out, err = Path(place, "out"), Path(place, "err")
        request = {
            "folder": str(folder), "environment": dict(os.environ), "arguments": arguments,
            "out": str(out), "err": str(err),
        }  # fmt: skip
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(["sweep", *arguments], code, out.read_text(), err.read_text())


@cache
def _server() -> subprocess.Popen[str]:
    # It ends with the process that started it, whose end of the pipe is closed then.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> bool:
    """Answer requests; true in the process that is to run a command."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(request)
            return True
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return False


def _become(request: dict[str, str]) -> None:
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[arg-type]
    sys.argv = ["sweep", *request["arguments"]]
    writing = os.O_WRONLY | os.O_CREAT
    for number, path, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], writing),
        (2, request["err"], writing),
    ):
        os.dup2(os.open(path, mode), number)
    signal.alarm(PATIENCE)


if __name__ == "__main__":
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import rich.markdown
    import rich.traceback  # noqa: F401

    from orchestrator import drive  # noqa: F401
    from orchestrator.cli import main
    from orchestrator.maintenance import adopt, gc, verify  # noqa: F401
    from orchestrator.results import table  # noqa: F401
    from orchestrator.search import figures  # noqa: F401

    if _serve():
        main()
