"""Checkpoints of steps in a store of either kind: found again, verified, and gone when the step is committed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy
from store_samples import Inside

from orchestrator.attempt import checkpoints as module
from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.checkpoints import STAGE, StepCheckpoints, checkpoint_address, step_of
from orchestrator.attempt.request import Request
from orchestrator.store import Store
from orchestrator.types import Artifact, Attempt, Outcome, Runtime, Step
from workers.checkpoints import NONE, Checkpoints, keep_rows, restore_rows

#: What `long` does, by its config's value.
FINE, RAISES, RAISES_LATER = 1.0, 2.0, 3.0


def long(config: toy.SourceConfig, out: Path, *, checkpoints: Checkpoints = NONE) -> dict[str, float]:
    """Reach 1 more than its last attempt, and end with 3."""
    found = sorted(checkpoints.found())
    reached = int(found[-1].removeprefix("at")) if found else 0
    if config.value == RAISES and found:
        raise ValueError("it cannot go on from there")
    if reached < 3:
        checkpoints.keep(f"at{reached + 1}", lambda folder: (folder / "file.txt").write_text(str(reached + 1)) and None)
        raise MemoryError("no more for now")
    if config.value == RAISES_LATER:
        raise ValueError("it could go on, and there is a fault")
    return {"value": config.value}


def request(store: Store, value: float = FINE, number: int = 1, **runtime: float) -> Request:
    definition = replace(toy.STAGES["toy_source"], function="test_step_checkpoints:long", checkpoints=True)
    address = Artifact("toy_source", f"{int(value)}" * 32)
    step = Step(address, "source", definition, {"value": value}, "{}", {}, {})
    return Request(step, number, Runtime(**runtime), store.location, "abc", "driver")  # type: ignore[arg-type]


def write(text: str, folder: Path) -> None:
    (folder / "file.txt").write_text(text)


def kept(store: Store) -> set[str]:
    return {each.key.rpartition(".")[2] for each in store.committed([STAGE])}


def test_a_later_attempt_finds_them_in_the_order_of_their_names_and_those_of_no_other_step(store: Store) -> None:
    first = StepCheckpoints(request(store), store)
    assert first.found() == {}
    for name in ("b", "a"):
        assert first.keep(name, lambda folder, name=name: write(name, folder))  # type: ignore[misc]
    StepCheckpoints(request(store, 2.0), store).keep("c", lambda folder: write("c", folder))
    found = StepCheckpoints(request(store, number=2), store).found()
    assert list(found) == ["a", "b"]
    assert [(folder / "file.txt").read_text() for folder in found.values()] == ["a", "b"]


def test_the_address_of_a_checkpoint_names_its_step() -> None:
    step = Artifact("my.study.train", "0" * 32)
    assert step_of(checkpoint_address(step, "a")) == step
    assert step_of(Artifact("other", "a.b.c")) is None
    assert step_of(Artifact(STAGE, "a")) is None


def test_a_damaged_one_is_deleted_and_the_others_are_found(store: Store) -> None:
    first = StepCheckpoints(request(store), store)
    for name in ("a", "b"):
        first.keep(name, lambda folder: write("whole", folder))
    inside = Inside(store)
    path = inside.file(checkpoint_address(request(store).step.address, "a"))
    inside.fs.pipe_file(path, b"torn")
    assert list(StepCheckpoints(request(store, number=2), store).found()) == ["b"]
    assert kept(store) == {"b"}


def test_what_cannot_be_kept_costs_the_checkpoint_only(store: Store) -> None:
    first = StepCheckpoints(request(store), store)
    first.keep("a", lambda folder: write("whole", folder))
    assert not first.keep("b", lambda folder: (folder / "link").symlink_to("nowhere"))
    assert kept(store) == {"a"}
    with pytest.raises(ValueError, match="letters and digits"):
        first.keep("../a", lambda folder: None)
    assert not store.claims()


def test_an_attempt_goes_on_from_the_last_and_a_committed_step_leaves_none(store: Store) -> None:
    for number, there in ((1, {"at1"}), (2, {"at1", "at2"}), (3, {"at1", "at2", "at3"})):
        (attempt,) = run_bundle([request(store, number=number)])
        assert attempt.outcome is Outcome.OUT_OF_MEMORY
        assert kept(store) == there
    (attempt,) = run_bundle([request(store, number=4)])
    assert attempt.outcome is Outcome.SUCCEEDED, attempt.error
    assert kept(store) == set()
    assert not store.remains()


def test_those_from_which_an_attempt_failed_at_once_are_deleted(store: Store) -> None:
    run_bundle([request(store, RAISES)])
    assert kept(store) == {"at1"}
    (attempt,) = run_bundle([request(store, RAISES, number=2)])
    assert attempt.outcome is Outcome.FAILED
    assert kept(store) == set()


@pytest.mark.parametrize(
    ("outcome", "later", "left"),
    [
        (Outcome.CRASHED, 1.0, set()),
        (Outcome.OUT_OF_MEMORY, 1.0, set()),
        (Outcome.LOST, 1.0, {"a"}),
        (Outcome.CRASHED, -1.0, {"a"}),
    ],
    ids=["crashed", "out of memory", "machine lost", "crashed after it had kept it"],
)
def test_those_from_which_a_process_died_are_deleted(
    store: Store, outcome: Outcome, later: float, left: set[str]
) -> None:
    address = request(store).step.address
    StepCheckpoints(request(store), store).keep("a", lambda folder: write("whole", folder))
    store.record(Attempt(address, "source", 2, outcome, 1.0, time.time() + later, "here", "abc"))
    assert StepCheckpoints(request(store, number=3), store).found().keys() == left
    assert kept(store) == left


def test_an_attempt_that_ends_otherwise_leaves_them(store: Store) -> None:
    for number in (1, 2):
        run_bundle([request(store, FINE, number=number)])
    assert kept(store) == {"at1", "at2"}


def test_one_is_due_after_a_while_and_the_next_only_after_fifty_times_as_long_as_it_took(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    mine = StepCheckpoints(request(store, checkpoint_every=60.0), store, lambda: now[0])
    now[0] = 59.0
    assert not mine.due()
    now[0] = 60.0
    assert mine.due()

    def slow(folder: Path) -> None:
        write("whole", folder)
        now[0] += 10.0

    mine.keep("a", slow)
    now[0] = 70.0 + 499.0
    assert not mine.due()
    now[0] = 70.0 + 500.0
    assert mine.due()
    now[0] = 0.0
    other = StepCheckpoints(request(store), store, lambda: now[0])
    now[0] = module.EVERY - 1
    assert not other.due()
    now[0] = module.EVERY
    assert other.due()


def test_rows_come_back_as_they_were(store: Store) -> None:
    np = pytest.importorskip("numpy")
    rows = np.arange(20, dtype=np.float16).reshape(10, 2)
    first = StepCheckpoints(request(store), store)
    assert keep_rows(first, rows, 0, 4) == 4
    assert keep_rows(first, rows, 4, 7) == 7
    back = np.zeros_like(rows)
    assert restore_rows(StepCheckpoints(request(store, number=2), store), lambda _: back) == 7
    assert np.array_equal(back[:7], rows[:7])
    assert not back[7:].any()
