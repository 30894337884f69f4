"""Probes that hang, raise, or are given up: none of them holds the doctor up or leaves anything behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

import pytest

from orchestrator.doctor.examination import Probe, Subject, examinations
from orchestrator.doctor.finding import Finding, ok, wrong
from orchestrator.doctor.race import RACERS, ROUNDS, race


class Patient:
    """Gives some probes, and notes when what they wrote was deleted."""

    def __init__(self, *probes: Probe) -> None:
        self.probes = probes
        self.cleaned = threading.Event()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Sequence[Probe]]:
        try:
            yield self.probes
        finally:
            self.cleaned.set()


def fine(name: str) -> Probe:
    return Probe(name, lambda: [ok(name, "there")])


def findings(*patients: Patient) -> list[list[Finding]]:
    with examinations([Subject(f"number {number}", each.begin) for number, each in enumerate(patients)]) as begun:
        return [list(each.findings(lambda _: None)) for each in begun]


def test_a_probe_that_hangs_is_a_finding_and_ends_its_subject_only() -> None:
    hang = threading.Event()

    def wait() -> list[Finding]:
        hang.wait(60)
        return []

    hanging = Patient(fine("first"), Probe("mount", wait, patience=0.05), fine("never"))
    other = Patient(fine("alone"))
    subjects = [Subject("hanging", hanging.begin), Subject("other", other.begin)]
    with examinations(subjects) as begun:
        first, second = (list(each.findings(lambda _: None)) for each in begun)
        assert [(each.name, each.state) for each in first] == [("first", "ok"), ("mount", "wrong")]
        assert first[1].seen.startswith("no answer in 0.05 s")
        assert [each.name for each in second] == ["alone"]
        hang.set()
    # Once it answers after all, it deletes what it wrote, and goes on to no other probe.
    assert hanging.cleaned.is_set()


def test_what_takes_long_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.doctor.examination.SLOW", 0.01)
    told: list[str] = []
    go = threading.Event()

    def slow() -> list[Finding]:
        go.wait(60)
        return [ok("slow", "at last")]

    def waiting(what: str) -> None:
        told.append(what)
        go.set()

    with examinations([Subject("node", Patient(Probe("slow", slow)).begin)]) as (only,):
        assert [each.seen for each in only.findings(waiting)] == ["at last"]
    assert told == ["node: slow"]


def test_whatever_a_probe_raises_is_a_finding_without_its_secrets() -> None:
    def fail() -> list[Finding]:
        raise ZeroDivisionError("at https://user:secret@host/x")

    (found,) = findings(Patient(Probe("odd", fail), fine("next")))
    assert [(each.name, each.state) for each in found] == [("odd", "wrong"), ("next", "ok")]
    assert "ZeroDivisionError" not in found[0].seen
    assert "secret" not in found[0].seen


def test_after_what_makes_the_rest_pointless_nothing_is_looked_at() -> None:
    last = Patient(Probe("place", lambda: [wrong("place", "is none", "make one", last=True)]), fine("never"))
    assert [[each.name for each in found] for found in findings(last)] == [["place"]]
    assert last.cleaned.is_set()


def test_who_stops_early_leaves_nothing_behind() -> None:
    patient = Patient(*map(fine, "abc"))

    def leave() -> None:
        with examinations([Subject("store", patient.begin)]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert patient.cleaned.is_set()


def test_a_race_counts_its_winners_and_raises_what_a_racer_raised() -> None:
    assert race(lambda round_, racer: racer == round_ % RACERS) == [1] * ROUNDS
    assert race(lambda round_, racer: True) == [RACERS] * ROUNDS

    def fail(round_: int, racer: int) -> bool:
        if racer == 3:
            raise OSError("no space")
        return False

    with pytest.raises(OSError, match="no space"):
        race(fail)
