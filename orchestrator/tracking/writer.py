"""The process that writes the outbox into MLflow beside a run; see `orchestrator.tracking.publisher`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from orchestrator.redact import redact
from orchestrator.tracking.client import TrackingError, is_server, translate_errors
from orchestrator.tracking.experiment import Experiment
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.studies import StudyRun
from orchestrator.tracking.sync import LAST_PAUSES, Sync

#: Seconds between two looks into the outbox, and between two updates of the groups' means.
_LOOK_EVERY, _MEANS_EVERY = 1.0, 60.0
#: Seconds before MLflow is tried again after it failed while the sweep runs, each twice the last.
_PAUSE, _PAUSE_LIMIT = 1.0, 60.0


def main() -> int:
    """Run the writer process, and return its exit code.

    Its arguments are the outbox's folder and a niceness, the first line of its standard input is the experiment. A
    second line, the experiment in its final form, makes it write what is left and end. When the input closes without
    it, the driver is dead, and this process ends at once: the outbox keeps what is left. JSON lines on standard output
    report progress (`done`, `total`), each completed synchronisation (`synced`) and errors (`error`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(int(sys.argv[2]))
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    ending = threading.Event()
    experiment = _experiment(sys.stdin.readline())
    sync = Sync(Outbox(Path(sys.argv[1])), experiment, lambda done, total: report(done=done, total=total))

    def report(**facts: object) -> None:
        print(json.dumps(facts), file=reports)

    def read_input() -> None:
        line = sys.stdin.readline()
        if line:
            sync.experiment = _experiment(line)
            ending.set()
            sys.stdin.readline()
        os._exit(0)

    threading.Thread(target=read_input, daemon=True).start()
    return write(sync, ending, report)


def write(sync: Sync, ending: threading.Event, report: Callable[..., None]) -> int:
    """Bring an outbox to MLflow again and again, until it is to end and has brought all.

    Args:
        sync: the outbox, and the experiment.
        ending: set when the sweep has ended; `sync.experiment` is in its final form then.
        report: called with what is to be told, by name.

    Returns:
        The exit code: 0, or 1 if MLflow could not be reached in the end.
    """
    uri = sync.experiment.uri
    pause, last_pauses, means_due = _PAUSE, list(LAST_PAUSES), time.monotonic() + _MEANS_EVERY
    while True:
        last = ending.is_set()
        try:
            with sync.outbox.locked(), translate_errors(uri):
                sync.deliver()
                if last or time.monotonic() >= means_due:
                    sync.conclude()
                    means_due = time.monotonic() + _MEANS_EVERY
                sync.check_refused()
            report(synced=asdict(sync.synced()))
            if last:
                return 0
            pause = _PAUSE
            ending.wait(_LOOK_EVERY)
        except Exception as error:
            sync.connected = False
            if not isinstance(error, TrackingError):
                print(redact(traceback.format_exc(), uri), file=sys.stderr, end="")
            report(error=redact(str(error), uri) or type(error).__name__)
            if not last:
                ending.wait(pause)
                pause = min(2 * pause, _PAUSE_LIMIT)
            elif last_pauses and is_server(uri) and error.__cause__ is not None:
                time.sleep(last_pauses.pop(0))
            else:
                return 1


def _experiment(line: str) -> Experiment:
    facts = json.loads(line)
    studies = (StudyRun(**{**each, "group": tuple(each["group"])}) for each in facts["studies"])
    facts |= {"datasets": tuple(facts["datasets"]), "files": tuple(facts["files"]), "studies": tuple(studies)}
    return Experiment(**facts)


if __name__ == "__main__":
    sys.exit(main())
