"""The live display of a run: readable where the terminal is narrow, and no identifier is ever cut."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import toy_sweep
from rich.console import Console

from orchestrator.cli.progress import Progress
from orchestrator.explain.estimator import Estimator
from orchestrator.run.schedule import State
from orchestrator.session import Session, open_session
from orchestrator.types import Attempt, Outcome

FULL = Path(__file__).parents[2] / "sweeps" / "full.yaml"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return open_session(FULL, outputs=str(tmp_path_factory.mktemp("out")))


def drawn(session: Session, width: int, **states: State) -> list[str]:
    """The table at some width, where every step is committed but those of some entries."""
    schedule = session.schedule
    schedule.codes[:] = State.COMMITTED
    for name, state in states.items():
        entry = session.plan.by_entry[name]
        schedule.codes[entry.first : entry.last] = state
    estimator = Estimator(schedule, lambda runtime: 8)
    for name, kinds in estimator.likeness.count(np.arange(len(session.plan))).items():
        for kind in kinds:
            estimator.throughput.add(name, kind, 500.0)
    file = io.StringIO()
    with Progress(schedule, Console(width=width, file=file, force_terminal=True, soft_wrap=True), estimator):
        pass
    # Without what moves the cursor and paints.
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    # It is drawn more than once.
    return [line.strip() for line in plain[plain.rindex("stage") :].splitlines()]


@pytest.mark.parametrize("width", [240, 80, 60])
def test_every_entry_and_every_count_of_the_full_sweep_is_whole_at_any_width(session: Session, width: int) -> None:
    unfinished = {
        "generate_train": State.ELSEWHERE, "annotate": State.RUNNING, "fit": State.FAILED, "evaluate": State.BLOCKED,
    }  # fmt: skip
    lines = drawn(session, width, **unfinished)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    words = set(re.findall(r"\S+", "\n".join(lines)))
    assert " ".join(lines).endswith("0 s, at least 37 h 30 min left")
    assert words >= set(session.plan.entries)
    for name, entry in session.plan.by_entry.items():
        total = f"{entry.last - entry.first:,}"
        done = "0" if name in unfinished else total
        assert f"{done}/{total}" in words, name


def test_a_name_that_is_too_long_goes_on_in_the_next_line(tmp_path: Path) -> None:
    name = "q" * 45
    text = toy_sweep.SWEEP.replace("double", name).replace(f"toy_{name}", "toy_double")
    lines = drawn(open_session(toy_sweep.write_sweep(tmp_path, text), outputs=str(tmp_path / "out")), 40)
    assert max(map(len, lines)) <= 40
    assert sum(line.count("q") for line in lines) == 45


def test_a_step_that_did_not_succeed_is_named_by_its_coordinates(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.replace("plain: {behaviour: work}", "plain: {behaviour: nan}")
    session = open_session(toy_sweep.write_sweep(tmp_path, text), outputs=str(tmp_path / "out"))
    console = Console(width=200, file=io.StringIO())
    progress = Progress(session.schedule, console, Estimator(session.schedule, lambda runtime: 1))
    for number, outcome, error in (
        (session.plan.by_entry["total"].first, Outcome.REJECTED, "metric 'total' is nan"),
        (session.plan.by_entry["source"].first + 1, Outcome.FAILED, "no\nTraceback"),
    ):
        address, entry = session.plan.address(number), session.plan.entry_of(number)
        progress.advance(Attempt(address, entry, 1, outcome, 1.0, 0.0, "here", "abc", "ValueError", error))
    assert isinstance(console.file, io.StringIO)
    first, _, second = console.file.getvalue().splitlines()
    assert first == "rejected total x=1,y=10,kind=plain: metric 'total' is nan"
    assert second == "failed source x=1 shard 2 of 2: ValueError: no"
