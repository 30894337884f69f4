"""Steps of one stage that are done together commit, fail and are tried again each by itself."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy
import toy_sweep
from holders import hold

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.drive import drive
from orchestrator.keys import digest
from orchestrator.session import open_session
from orchestrator.store import Store
from orchestrator.types import Artifact, Manifest, Outcome, Runtime, Step


def requests_for(store: Store, *behaviours: str) -> list[Request]:
    requests = []
    for value, behaviour in enumerate(behaviours):
        config = {"value": value, "behaviour": behaviour}
        step = Step(Artifact("toy_band", digest(config)), "band", toy.STAGES["toy_band"], config, "{}", {}, {})
        requests.append(Request(step, 1, Runtime(), store.location, "abc", "driver"))
    return requests


def traced(tmp_path: Path) -> list[str]:
    return (tmp_path / "toy-trace").read_text().splitlines()


def test_steps_that_work_are_done_in_one_call_and_committed_each_by_itself(tmp_path: Path, store: Store) -> None:
    requests = requests_for(store, "work", "work", "work")
    began = time.perf_counter()
    attempts = run_bundle(requests)
    assert [attempt.outcome for attempt in attempts] == [Outcome.SUCCEEDED] * 3
    assert [attempt.metrics for attempt in attempts] == [{"answer": 0}, {"answer": 1}, {"answer": 2}]
    # What they share is shared out.
    assert 0 < sum(attempt.seconds for attempt in attempts) <= time.perf_counter() - began
    assert traced(tmp_path) == ["together 3"]
    # The threads that did it have ended, so that this process may run the next bundle.
    assert PROCESS.spoilt is None
    for value, request in enumerate(requests):
        assert (store.fetch(request.step.address) / "answer.txt").read_text() == f"{value}.0"
    assert not list((tmp_path / "store" / "claims").rglob("*/*"))


def test_a_step_alone_is_not_done_together(tmp_path: Path, store: Store) -> None:
    run_bundle(requests_for(store, "work"))
    assert traced(tmp_path) == ["work"]


@pytest.mark.parametrize("bad", ["raise", "nan", "print"])
def test_a_step_that_fails_in_company_is_tried_by_itself_and_costs_nobody_anything(
    tmp_path: Path, store: Store, bad: str
) -> None:
    attempts = run_bundle(requests_for(store, "work", bad, "work"))
    outcome = {"raise": Outcome.FAILED, "nan": Outcome.REJECTED, "print": Outcome.SUCCEEDED}[bad]
    assert [attempt.outcome for attempt in attempts] == [Outcome.SUCCEEDED, outcome, Outcome.SUCCEEDED]
    assert traced(tmp_path) == ["together 3", bad]


def test_when_nothing_works_together_every_step_is_tried_by_itself(tmp_path: Path, store: Store) -> None:
    attempts = run_bundle(requests_for(store, "work", "no_metric", "work"))
    outcomes = [Outcome.SUCCEEDED, Outcome.REJECTED, Outcome.SUCCEEDED]
    assert [attempt.outcome for attempt in attempts] == outcomes
    assert traced(tmp_path) == ["together 3", "work", "no_metric", "work"]


def test_steps_that_others_hold_or_have_committed_stay_out_of_it(tmp_path: Path, store: Store) -> None:
    held, there, *rest = requests_for(store, "work", "work", "work", "work")
    run_bundle([there])
    hold(store, held.step.address, space="elsewhere")
    attempts = {attempt.address: attempt for attempt in run_bundle([held, there, *rest])}
    assert traced(tmp_path) == ["work", "together 2"]
    outcomes = {Outcome.CLAIMED: 1, Outcome.SUCCEEDED: 3}
    assert Counter(attempt.outcome for attempt in attempts.values()) == outcomes
    assert not isinstance(store.manifests([held.step.address])[held.step.address], Manifest)


BAND = """\
name: band
question: Who takes the others along?
axes: {value: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], kind: {plain: {behaviour: work}}}
stages:
  band: {stage: toy_band, config: [{value: $value}, $kind]}
runtime: {default: {timeout: 6}}
tracking: false
uses: [toy]
namespace: toy
"""


@pytest.mark.faults
@pytest.mark.parametrize("bad", ["crash", pytest.param("hang", marks=pytest.mark.long)])
def test_a_step_that_kills_the_process_of_many_costs_its_neighbours_no_try(
    tmp_path: Path, local_ray: None, bad: str
) -> None:
    text = BAND.replace("{behaviour: work}}", f"{{behaviour: work}}, bad: {{behaviour: {bad}}}}}")
    exclude = [value for value in range(1, 21) if value != 17]
    text += f"exclude: [{{kind: bad, value: {exclude}}}]\n"
    session = open_session(toy_sweep.write_sweep(tmp_path, text), outputs=str(tmp_path / "out"))
    assert drive(session, None, False, None) == 1
    rows = pq.read_table(session.outputs.results).to_pylist()
    assert {row["status"] for row in rows if row["kind"] == "plain"} == {"succeeded"}
    (failed,) = [row for row in rows if row["kind"] == "bad"]
    assert failed["error_class"] == {"crash": "crashed", "hang": "timed_out"}[bad]
    assert any(line.startswith("together") for line in traced(tmp_path))
