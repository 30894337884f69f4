"""Several threads that do one thing at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Threads that race.
RACERS = 8
#: Rounds that they race: a service that looks before it writes lets two win now and then only.
ROUNDS = 10


def race(act: Callable[[int, int], bool]) -> list[int]:
    """Return how many threads succeeded in each round.

    Args:
        act: called with the numbers of the round and of the thread; returns whether it succeeded.

    Raises:
        Exception: the first that an act raised.
    """
    gate = threading.Barrier(RACERS)
    winners: list[list[int]] = [[] for _ in range(ROUNDS)]
    errors: list[Exception] = []

    def run(racer: int) -> None:
        try:
            for round_ in range(ROUNDS):
                gate.wait()
                if act(round_, racer):
                    winners[round_].append(racer)
        except Exception as error:
            errors.append(error)
            # Nobody waits for this one any more.
            gate.abort()

    # Daemons: an act that hangs must not keep the process from ending, as a pool's would.
    threads = [threading.Thread(target=run, args=(racer,), daemon=True) for racer in range(RACERS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [len(each) for each in winners]
