"""The real grid with stages that do nothing: what the orchestrator itself costs.

As a command, `python tests/benchmarks/noop.py run sweeps/full.yaml`, it is like `sweep`. Steps bring their stage along
to the workers of Ray.
"""

from __future__ import annotations

import dataclasses
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.study import table
from workers import config as configs
from workers.stage import Call

HERE = Path(__file__).parent


def noop(config: configs.Config, out: Path, **inputs: object) -> dict[str, float]:
    """Nothing but a number per metric; NOOP_FAIL is a rate of failures, NOOP_BREAK the name of a config that fails."""
    if type(config).__name__ == os.environ.get("NOOP_BREAK"):
        raise RuntimeError("broken on purpose")
    if random.random() < float(os.environ.get("NOOP_FAIL") or 0):
        raise ValueError("failed by chance")
    return dict.fromkeys(config.declared() or (), 0.5)


def noops(calls: Sequence[Call]) -> Iterator[dict[str, float]]:
    """As `noop` for each."""
    return (noop(call.config, call.out) for call in calls)


def second(config: configs.Config, out: Path, **inputs: object) -> dict[str, float]:
    """A second of work for one core."""
    end = time.process_time() + 1.0
    while time.process_time() < end:
        pass
    return dict.fromkeys(config.declared() or (), 0.5)


def seconds(calls: Sequence[Call]) -> Iterator[dict[str, float]]:
    """As `second` for each."""
    return (second(call.config, call.out) for call in calls)


def install() -> None:
    """Make every stage of this process do nothing (or, with NOOP_SECOND set, keep a core busy for a second)."""
    function = "noop:second" if os.environ.get("NOOP_SECOND") else "noop:noop"
    table.STAGES = {
        name: dataclasses.replace(stage, function=function, together=stage.together and f"{function}s")
        for name, stage in table.STAGES.items()
    }


def connect() -> None:
    """A local Ray on two cores whose workers have these stages."""
    import ray

    paths = [str(HERE), str(HERE.parents[1])]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={
            "env_vars": {
                "PYTHONPATH": os.pathsep.join(paths),
                **{name: value for name, value in os.environ.items() if name.startswith("NOOP_")},
            },
        },
    )


if __name__ == "__main__":
    from orchestrator.cli import main

    install()
    if "run" in sys.argv and "--inline" not in sys.argv:
        connect()
    main()
