"""What a notebook does with a sweep that is interrupted once: `as_a_notebook.py FOLDER [inline]`.

It says `running` when steps have been committed, and waits for Ctrl-C; at the end it prints what became of it as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import psutil
import toy  # noqa: F401 (what the sweep uses)
import toy_sweep

from orchestrator import open_sweep
from orchestrator.explain.progress import SweepProgress
from orchestrator.sweep.document import parse_value


def main(folder: Path, inline: bool) -> None:
    values = parse_value(toy_sweep.SLOW)
    # What an interrupt leaves of MLflow's writer is seen over Ray, which takes its time anyway.
    sweep = open_sweep({**values, "tracking": False if inline else {}}, ["axes.x=[1, 2]"], outputs=folder / "out")
    facts: dict[str, object] = {"to_run": sweep.plan()["steps"]["total"]["to_run"]}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def show(progress: SweepProgress) -> None:
        if progress.done > 8 and "said" not in facts:
            facts["said"] = str(progress)
            print("running", flush=True)

    try:
        sweep.run(show, inline=inline)
    except KeyboardInterrupt as error:
        facts["interrupted"] = str(error)
    facts["restored"] = handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    facts["children"] = [each.name() for each in psutil.Process().children(recursive=True)]
    facts["live"] = sweep.status()["live"]
    facts["then"] = sweep.status()["cells_by_status"]
    facts["in_the_table"] = sweep.table()["status"].to_pylist().count("succeeded")
    facts["finished"] = sweep.run(inline=inline).finished
    facts["rows"] = sweep.table().select(["x", "y", "kind", "status", "total", "key"]).to_pylist()
    print(json.dumps(facts))


if __name__ == "__main__":
    # A shell that runs the tests in the background has them ignore SIGINT, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(Path(sys.argv[1]), "inline" in sys.argv)
