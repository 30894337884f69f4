"""What sealing a step costs: the median of 2,000 of each of its parts, in microseconds, on an otherwise idle machine.

python tests/benchmarks/bench_seal.py [torch]
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

from orchestrator.attempt import seal
from orchestrator.attempt.surroundings import PARTS

TIMES = 2_000


def microseconds(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(TIMES):
        begun = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - begun)
    return statistics.median(taken) / 1000


def sealed_step() -> None:
    with seal.sealed():
        pass


def empty_bundle() -> None:
    with seal.sealed_bundle():
        pass


def read_only(folder: Path) -> float:
    """Of four files; each time others."""
    folders = [folder / str(number) for number in range(TIMES)]
    names = [f"{number}.bin" for number in range(4)]
    for each in folders:
        each.mkdir()
        for name in names:
            (each / name).touch()
    left = iter(folders)
    return microseconds(lambda: seal.make_read_only(next(left), names))


def main() -> None:
    for name in ("numpy", *sys.argv[1:]):
        importlib.import_module(name)
    found: dict[str, float] = {}
    for name, part in PARTS.items():
        before = part.read()
        found[f"{name}: read"] = microseconds(part.read)
        found[f"{name}: read and compared"] = microseconds(lambda part=part, before=before: part.read() != before)  # type: ignore[misc]
    threads = threading.enumerate()
    found["children, where there are none"] = microseconds(lambda: seal._children(threads))
    found["threads"] = microseconds(threading.enumerate)
    found["orphans are adopted, and no longer"] = microseconds(
        lambda: (seal._adopt_orphans(True), seal._adopt_orphans(False))
    )
    found["a step alone"] = microseconds(sealed_step)
    with seal.sealed_bundle():
        found["a step of a bundle"] = microseconds(sealed_step)
    child = os.fork()
    if not child:
        time.sleep(600)
    found["children, where there is one"] = microseconds(lambda: seal._children(threads))
    found["a step beside a child"] = microseconds(sealed_step)
    os.kill(child, 9)
    os.waitpid(child, 0)
    with tempfile.TemporaryDirectory() as folder:
        found["four files made read-only"] = read_only(Path(folder))
    found["a bundle"] = microseconds(empty_bundle)
    table = Table("what", "us")
    for name, cost in found.items():
        table.add_row(name, f"{cost:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
