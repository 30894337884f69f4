"""The process that tells MLflow beside a run what the outbox holds; see `orchestrator.tracking.publisher`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from orchestrator.redact import redact
from orchestrator.tracking.runs import Experiment
from orchestrator.tracking.sent import Outbox, locked
from orchestrator.tracking.sync import LAST_PAUSES, Mirror, TrackingError, is_server, told_apart

#: Seconds between two looks into the outbox, and between two updates of the groups' means.
_LOOK_EVERY, _MEANS_EVERY = 1.0, 60.0
#: Seconds before MLflow is asked again after it failed while the sweep runs, each twice the last.
_PAUSE, _PAUSE_LIMIT = 1.0, 60.0


def main() -> int:
    """Be the writer: the outbox's folder and a niceness as arguments, the experiment as first line of standard input.

    A second line, the experiment as it is in the end, asks to write what is left and to end. When the input closes
    without it, the driver is dead, and so is this: the outbox keeps what is left. Standard output tells, as JSON lines,
    how far it is or what is wrong.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(int(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    ending = threading.Event()
    experiment = _experiment(sys.stdin.readline())
    mirror = Mirror(Outbox(Path(sys.argv[1])), experiment, lambda done, total: tell(done=done, total=total))

    def tell(**facts: object) -> None:
        print(json.dumps(facts), file=answers)

    def listen() -> None:
        line = sys.stdin.readline()
        if line:
            mirror.experiment = _experiment(line)
            ending.set()
            sys.stdin.readline()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    pause, last_pauses, means_due = _PAUSE, list(LAST_PAUSES), time.monotonic() + _MEANS_EVERY
    while True:
        last = ending.is_set()
        try:
            with locked(mirror.outbox.lock), told_apart(experiment.uri):
                mirror.deliver()
                if last or time.monotonic() >= means_due:
                    mirror.conclude()
                    means_due = time.monotonic() + _MEANS_EVERY
                mirror.check_refused()
            tell(synced=asdict(mirror.synced()))
            if last:
                return 0
            pause = _PAUSE
            ending.wait(_LOOK_EVERY)
        except Exception as error:
            mirror.connected = False
            if not isinstance(error, TrackingError):
                print(redact(traceback.format_exc(), experiment.uri), file=sys.stderr, end="")
            tell(error=redact(str(error), experiment.uri) or type(error).__name__)
            if not last:
                ending.wait(pause)
                pause = min(2 * pause, _PAUSE_LIMIT)
            elif last_pauses and is_server(experiment.uri) and error.__cause__ is not None:
                time.sleep(last_pauses.pop(0))
            else:
                return 1


def _experiment(line: str) -> Experiment:
    facts = json.loads(line)
    return Experiment(**{**facts, "datasets": tuple(facts["datasets"]), "files": tuple(facts["files"])})


if __name__ == "__main__":
    sys.exit(main())
