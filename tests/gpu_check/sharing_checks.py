"""Processes that share a GPU: each keeps to its memory, and none takes from the others; also on Ray."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from check_record import Figure, Record
from stage_sweep import open_values, stage_sweep

HERE = Path(__file__).parent
#: What each process does: memory of its own, more than it may have, then its own again while the others have theirs.
PROCESS = """
import sys
sys.path.insert(0, {repository!r})
import torch
from workers.device import device, promise_gpu
promise_gpu(True, 2**30)
mine = torch.ones(2**28 * 3 // 4, device=device())
print("HOLDS", flush=True)
sys.stdin.readline()
try:
    torch.ones(2**27, device=device())
    print("TOOK MORE")
except torch.OutOfMemoryError:
    print("REFUSED")
print(mine.min().item() == mine.max().item() == 1)
"""
COUNT = 4


def shared_memory(record: Record, work: Path) -> None:
    """Let four processes have 1 GiB each, use three quarters of it, and ask for half a GiB more."""
    program = PROCESS.format(repository=str(HERE.parents[1]))
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(COUNT)
    ]
    holds = [process.stdout.readline().strip() for process in processes if process.stdout]
    said = [process.communicate("\n")[0].split() for process in processes]
    record.expect(f"{COUNT} processes with 1 GiB each", holds == ["HOLDS"] * COUNT, "each has 0.75 GiB at once")
    record.expect(
        "more than their part", said == [["REFUSED", "True"]] * COUNT,
        f"is refused, and what they have is unharmed: {dict(Counter(map(tuple, said)))}",
    )  # fmt: skip


def fractional(record: Record, work: Path) -> None:
    """Run a sweep on Ray whose steps have a quarter of a GPU each."""
    from orchestrator.notebook import Sweep

    values = stage_sweep()
    stages = values["stages"]
    settings = {"split": "train", "responses": 4, "max_new_tokens": 64, "seed": "$seed"}
    values |= {
        "name": "fractional", "axes": {"seed": list(range(8))}, "results": ["generate"],
        "stages": {
            "prompts": stages["prompts"], "demonstrations": stages["demonstrations"], "policy": stages["policy"],
            "generate": {"inputs": {"policy": "policy", "prompts": "prompts"}, "config": settings},
        },
        "runtime": {"generate": {"gpus": 0.25, "gpu_memory": "2GiB", "attempts": 1}},
    }  # fmt: skip
    session = open_values(values, work / "fractional")
    result = Sweep(session).run()
    table = session.results().table().to_pylist() if result.finished else []
    seconds = [float(row["seconds"]) for row in table if row.get("seconds") is not None]
    record.expect(
        "steps with a quarter of a GPU", result.finished,
        f"cells: {dict(result.cells)}; {result.stopped or '; '.join(result.warnings) or 'no warnings'}",
        [Figure("mean time of a cell", sum(seconds) / len(seconds), "s")] if seconds else [],
    )  # fmt: skip
