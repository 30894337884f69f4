"""`sweep doctor` starts the interpreters of other environments that a sweep names, as a run would."""

from __future__ import annotations

import json
from pathlib import Path

import toy_sweep
from made_interpreters import make_interpreter

from orchestrator.doctor.examination import Examination, Subject
from orchestrator.doctor.finding import Finding, State
from orchestrator.doctor.node import facts
from orchestrator.doctor.patient import admit


def written(folder: Path, first: str, second: str) -> str:
    runtime = {"default": {"python": first}, "total": {"rules": [{"at": {"x": 3}, "python": second}]}}
    return str(toy_sweep.write_sweep(folder, f"{toy_sweep.SWEEP}runtime: {json.dumps(runtime)}\n"))


def told(subject: Subject) -> list[Finding]:
    return [each for each in Examination(subject).findings(lambda _: None) if each.name == "interpreter"]


def test_each_interpreter_of_a_sweep_is_started_and_tells_its_versions_or_what_is_wrong(tmp_path: Path) -> None:
    other = make_interpreter(tmp_path / "other")
    patient = admit(written(tmp_path, other, "/nowhere/bin/python"), outputs=str(tmp_path / "out"))
    assert patient.pythons == (other, "/nowhere/bin/python")
    (machine,) = (each for each in patient.subjects() if each.title == "this machine")
    sound, missing = told(machine)
    assert (sound.state, missing.state) == (State.OK, State.WRONG)
    assert sound.seen.startswith(f"{other}: Python 3.")
    assert "no step can run under /nowhere/bin/python on " in missing.seen
    assert "there is no such file" in missing.seen
    assert missing.remedy


def test_on_a_cluster_they_are_those_of_its_nodes(tmp_path: Path) -> None:
    path = written(tmp_path, "/nowhere/bin/python", "/nowhere/else")
    patient = admit(path, outputs=str(tmp_path / "out"), address="auto")
    (machine,) = (each for each in patient.subjects() if each.title == "this machine")
    assert told(machine) == []
    found = [each for each in facts(pythons=patient.pythons).findings if each.name == "interpreter"]
    assert [each.state for each in found] == [State.WRONG, State.WRONG]
