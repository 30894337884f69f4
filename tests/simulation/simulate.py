"""Hunts for histories in which something goes wrong: `make simulate`.

python tests/simulation/simulate.py --seconds 600       # hunt for ten minutes, on all cores
python tests/simulation/simulate.py --seed 17.3         # tell the history of one seed, shrunk
python tests/simulation/simulate.py --seed 17.3 --debug # … and stop in the debugger where it goes wrong
python tests/simulation/simulate.py --mutations         # how soon each known fault is found, as a table
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from choices import Seed
from history import Found, History, Setting
from judge import Judge
from known_faults import MUTATIONS, SELDOM, put_back
from shrink import kind_of, shrink

#: Histories that one process runs.
_CHUNK = 50
#: Store operations below which a history does not count.
ENOUGH = 200
#: The histories of one budget, and from which seeds ten budgets begin.
BUDGET, STARTS = 2000, tuple(range(1_000_000, 11_000_000, 1_000_000))

Result = tuple[Seed, list[str], int, set[tuple[object, ...]]]
"""A history's seed, what went wrong, its store operations, and what it met."""


def run_chunk(chunk: tuple[str | None, Sequence[Seed], bool]) -> list[Result]:
    """Run some histories, with a mutation or without; with one only until something goes wrong."""
    mutation, seeds, stop = chunk
    setting = the_setting()
    setting.settle()
    results: list[Result] = []
    try:
        with put_back(mutation) if mutation else nullcontext(), setting.disk.installed():
            for seed in seeds:
                found = History(setting, seed).run()
                results.append((seed, found.broken, found.operations, found.seen))
                if stop and found.broken:
                    break
    finally:
        setting.remove()
    return results


@cache
def the_setting() -> Setting:
    """Plan the sweep, and import all that a history uses, once before processes are forked."""
    setting = Setting()
    with setting.disk.installed():
        History(setting, (0,)).run()
    return setting


@contextmanager
def pool(processes: int) -> Iterator[Any]:
    """Give processes that run chunks of histories, each one chunk: what its dead threads hold is never given back."""
    setting = the_setting()
    gc.freeze()
    try:
        with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as made:
            yield made
    finally:
        setting.remove()


class Hunt:
    """A hunt: which seeds are tried next, and what was met so far."""

    def __init__(self, first: int, guided: bool) -> None:
        self.next = first
        self.guided = guided
        self.met: set[tuple[object, ...]] = set()
        self.promising: list[Seed] = []
        """Seeds of histories that met something new."""
        self.count = self.enough = self.operations = 0
        self.broken: dict[str, Seed] = {}
        """What goes wrong -> the first seed of it."""
        self._drawn = random.Random(first)

    def chunks(self) -> Iterator[tuple[str | None, list[Seed], bool]]:
        while True:
            seeds: list[Seed] = []
            for _ in range(_CHUNK):
                if self.guided and self.promising and self._drawn.random() < 0.5:
                    seeds.append((*self._drawn.choice(self.promising[-500:]), self._drawn.randrange(10**6)))
                else:
                    seeds.append((self.next,))
                    self.next += 1
            yield None, seeds, False

    def take(self, results: Sequence[Result]) -> None:
        for seed, broken, operations, seen in results:
            self.count += 1
            self.enough += operations >= ENOUGH
            self.operations += operations
            if seen - self.met:
                self.met |= seen
                self.promising.append(seed)
            if broken:
                self.broken.setdefault(kind_of(Found(seed, broken, 0, 0, {}, set(), {})), seed)  # type: ignore[arg-type]


def hunt(seconds: float, count: int, first: int, processes: int, guided: bool, quiet: bool) -> Hunt:
    """Hunt for some time, or for a number of histories of at least `ENOUGH` store operations."""
    hunting = Hunt(first, guided)
    began = time.monotonic()
    told = began
    with pool(processes) as workers:
        chunks = hunting.chunks()
        under_way = [workers.apply_async(run_chunk, (next(chunks),)) for _ in range(processes + 1)]
        while under_way:
            hunting.take(under_way.pop(0).get())
            now = time.monotonic()
            if now - began < seconds and hunting.enough < count:
                under_way.append(workers.apply_async(run_chunk, (next(chunks),)))
            if not quiet and now - told > 5:
                told = now
                print(
                    f"{now - began:6.0f} s  {hunting.count} histories ({hunting.count / (now - began):.0f} a second), "
                    f"{hunting.operations} store operations, {len(hunting.met)} states met, "
                    f"{len(hunting.broken)} kinds of faults found",
                    file=sys.stderr,
                )
    return hunting


def tell(seed: Seed, debug: bool, mutation: str | None = None) -> int:
    """Run one history again; tell its story, shrunk, if it goes wrong, or stop in the debugger there."""
    setting = the_setting()
    try:
        with put_back(mutation) if mutation else nullcontext(), setting.disk.installed():
            Judge.debug = debug
            found = History(setting, seed).run()
            if not found.broken:
                print(f"seed {_name(seed)}: nothing goes wrong in {found.operations} store operations")
                return 0
            print(f"seed {_name(seed)}: {found.broken[0]}", flush=True)
            shrunk = shrink(
                setting, found, progress=lambda left: print(f"\r{left} choices left ", end="", file=sys.stderr)
            )
            print(file=sys.stderr)
            print("\n".join(shrunk.story))
            return 1
    finally:
        setting.remove()


def budget_until_found(mutation: str, first: int, processes: int) -> int | None:
    """Return how many histories it takes to find a mutation, None if a budget does not suffice."""
    done = 0
    chunk = 20
    with pool(processes) as workers:
        chunks = [
            (mutation, [(first + number,) for number in range(start, start + chunk)], True)
            for start in range(0, BUDGET, chunk)
        ]
        for results in workers.imap(run_chunk, chunks):
            for _, broken, _, _ in results:
                done += 1
                if broken:
                    return done
    return None


def table(names: Sequence[str], starts: Sequence[int], processes: int) -> int:
    """Print how soon each mutation is found, from ten different seeds on."""
    print("| fault that was put back | found | histories until found: median | most |\n|---|---|---|---|")
    bad = 0
    for name in names:
        counts = [budget_until_found(name, start, processes) for start in starts]
        found = [count for count in counts if count is not None]
        bad += name not in SELDOM and len(found) < 0.9 * len(starts)
        middle, most = (f"{statistics.median(found):g}", str(max(found))) if found else ("–", "–")
        print(f"| {name} | {len(found)} of {len(starts)} | {middle} | {most} |", flush=True)
    return int(bad > 0)


def _name(seed: Seed) -> str:
    return ".".join(map(str, seed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to hunt")
    parser.add_argument("--count", type=int, default=10**9, help="end after so many histories of 200 store operations")
    parser.add_argument("--first", type=int, default=None, help="the first seed; drawn at random when left out")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", help="tell the history of this seed")
    parser.add_argument("--debug", action="store_true", help="stop in the debugger where it goes wrong")
    parser.add_argument("--mutation", choices=MUTATIONS, metavar="NAME", help="put a known fault back, with --seed")
    parser.add_argument(
        "--mutations", action="store_true", help="how soon each known fault is found, but for those of SELDOM"
    )
    parser.add_argument("--starts", type=int, default=len(STARTS), help="from how many different seeds on, at most 10")
    parser.add_argument("--json", action="store_true", help="only the figures, as JSON")
    chosen = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets must not differ from run to run.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    if chosen.seed:
        return tell(tuple(map(int, chosen.seed.split("."))), chosen.debug, chosen.mutation)
    if chosen.mutations:
        return table(
            [chosen.mutation] if chosen.mutation else [each for each in MUTATIONS if each not in SELDOM],
            STARTS[: chosen.starts],
            chosen.processes,
        )
    first = random.randrange(10**9) if chosen.first is None else chosen.first
    began = time.monotonic()
    found = hunt(chosen.seconds, chosen.count, first, chosen.processes, chosen.first is None, chosen.json)
    seconds = time.monotonic() - began
    if chosen.json:
        broken = {kind: _name(seed) for kind, seed in found.broken.items()}
        facts = {"histories": found.count, "enough": found.enough, "operations": found.operations, "broken": broken}
        print(json.dumps({**facts, "states": len(found.met), "seconds": round(seconds, 1)}))
        return int(bool(broken))
    print(
        f"{found.count} histories in {seconds:.0f} s ({found.count / seconds:.0f} a second), {found.enough} of them "
        f"with at least {ENOUGH} store operations, {found.operations} in all; {len(found.met)} states met"
    )
    for kind, seed in found.broken.items():
        print(f"\n{kind} …: make simulate SEED={_name(seed)}")
        tell(seed, False)
    return int(bool(found.broken))


if __name__ == "__main__":
    sys.exit(main())
