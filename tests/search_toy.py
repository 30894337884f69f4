"""A search over a bowl: a function of one's own whose best value is known, which does other things on request."""

from __future__ import annotations

from pathlib import Path

from orchestrator.session import Session, open_session

#: The loss is least at lr = 0.1 and `wide`; the seed shifts it a little, alike for all trials.
BOWL = """
import math, os, random, time
from pathlib import Path
from typing import Literal, TypedDict

class Losses(TypedDict):
    loss: float | None
    size: float

def bowl(
    out: Path, *, base: Path, lr: float, net: list[int], seed: int,
    momentum: float = 0.5, odd: int | str = 0, step: Literal[1, 3] = 1,
) -> Losses:
    with open(os.environ["BOWL_TRACE"], "a") as stream:
        stream.write(f"{lr!r} {net} {seed}\\\\n")
    if lr > float(os.environ.get("BOWL_RAISES", "inf")):
        raise ValueError("diverged")
    time.sleep(float(os.environ.get("BOWL_SECONDS", "0")))
    noise = random.Random(f"{seed}").uniform(0, 0.1)
    loss = (math.log10(lr) + 1) ** 2 + 0.3 * (len(net) == 1) + (momentum - 0.7) ** 2 + noise
    return {"loss": None if lr < float(os.environ.get("BOWL_UNDEFINED", "0")) else loss, "size": float(sum(net))}

def base(out: Path, *, seed: int) -> dict[str, float]:
    (out / "base").write_text(str(seed))
    return {"value": float(seed)}
""".replace("\\\\", "\\")

SWEEP = """\
name: bowls
question: Where is the bottom?
axes: {arm: [a, b]}
search:
  tuning:
    per: [arm]
    space:
      lr: {float: [1.0e-4, 1.0], log: true}
      net: {choice: {narrow: [8], wide: [16, 16]}, default: narrow}
      momentum: {float: [0.0, 0.9], when: {arm: b}}
    objective: {metric: loss, better: lower, over: {seed: [0, 1, 2]}, reduce: mean}
    trials: 6
    concurrency: 1
    seed: 3
    start: [{lr: 0.01, net: narrow}]
    fresh: {seed: [10, 11]}
stages:
  base: {stage: "bowl:base", config: {seed: $seed}}
  fit: {stage: "bowl:bowl", inputs: {base: base}, config: [$tuning, {seed: $seed}]}
results: [fit]
tracking: false
"""


def write_bowls(folder: Path, text: str = SWEEP) -> Path:
    """Write the sweep and its stages into a folder."""
    (folder / "bowl.py").write_text(BOWL)
    path = folder / "bowls.yaml"
    path.write_text(text)
    return path


def open_bowls(folder: Path, *overrides: str, text: str = SWEEP) -> Session:
    """Write and open it; the outputs are in `out` beside it."""
    return open_session(write_bowls(folder, text), list(overrides), outputs=str(folder / "out"))


def calls(folder: Path) -> list[str]:
    """What was computed since the test began: one line for each call."""
    trace = folder / "trace"
    return trace.read_text().splitlines() if trace.exists() else []
