"""Artifacts that refer to another one: it is fetched with them, kept with them, and made again if it is gone."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import fsspec
import pytest
import toy_adapters
import toy_sweep

from orchestrator.cli.show_run import run_and_show
from orchestrator.maintenance.adopt import Former, adopt
from orchestrator.maintenance.gc import collect
from orchestrator.session import Session, open_session
from orchestrator.types import Artifact, Manifest, Outcome
from workers.stage import Stage

SWEEP = """\
name: adapters
question: What is the sum?
axes: {x: [1, 2]}
stages:
  base: {stage: toy_base, config: {value: 100, fails: FOLDER/fails}}
  first: {stage: toy_adapter, inputs: {policy: base}, config: {add: $x}}
  second: {stage: toy_adapter, inputs: {policy: first}, config: {add: 10}}
  read: {stage: toy_read, inputs: {policy: second}}
results: [read]
tracking: false
uses: [toy_adapters]
namespace: toy
"""


@pytest.fixture(params=["posix", pytest.param("objects", marks=pytest.mark.s3)])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "posix" else str(request.getfixturevalue("s3"))


def run(folder: Path, outputs: str, *overrides: str, code: int = 0) -> Session:
    file = toy_sweep.write_sweep(folder, SWEEP.replace("FOLDER", str(folder)), "adapters.yaml")
    session = open_session(file, list(overrides), outputs=outputs)
    assert run_and_show(session, None, True, None) == code
    return open_session(file, list(overrides), outputs=outputs)


def addresses(session: Session, entry: str) -> list[Artifact]:
    found = session.plan.by_entry[entry]
    return [session.plan.address(number) for number in range(found.first, found.last)]


def manifest(session: Session, address: Artifact) -> Manifest:
    found = session.store.manifests([address])[address]
    assert isinstance(found, Manifest)
    return found


def sums(session: Session) -> list[float]:
    return [manifest(session, each).metrics["sum"] for each in addresses(session, "read")]


def outcomes(session: Session) -> dict[str, Counter[str]]:
    """Entry -> how its attempts ended that did not succeed."""
    found = {}
    for entry in session.plan.entries:
        histories = session.store.histories(addresses(session, entry))
        found[entry] = Counter(str(each.outcome) for history in histories.values() for each in history)
    return {entry: ended for entry, ended in found.items() if ended}


def finished(session: Session, entry: str) -> list[float]:
    return [manifest(session, each).finished for each in addresses(session, entry)]


def test_an_adapter_of_an_adapter_refers_to_the_base_and_its_readers_get_both(tmp_path: Path, outputs: str) -> None:
    session = run(tmp_path, outputs)
    assert sums(session) == [111, 112]
    (base,) = addresses(session, "base")
    adapters = [*addresses(session, "first"), *addresses(session, "second")]
    assert {manifest(session, each).refers_to for each in adapters} == {base}
    assert manifest(session, base).refers_to is None
    assert outcomes(session) == {}


def test_what_an_artifact_refers_to_may_refer_to_another(tmp_path: Path) -> None:
    outputs, links = str(tmp_path / "out"), "stages.second.config.link=true"
    session = run(tmp_path, outputs, links)
    assert sums(session) == [111, 112]
    refer = [manifest(session, each).refers_to for each in addresses(session, "second")]
    assert refer == addresses(session, "first")
    collect([session], ["base", "first"], True)
    session.store.remove([*addresses(session, "base"), *addresses(session, "read")])
    session = run(tmp_path, outputs, links)
    assert sums(session) == [111, 112]
    assert outcomes(session) == {"read": Counter({Outcome.DAMAGED_INPUT.value: 2})}


@pytest.mark.parametrize("harm", ["remove", "alter"])
def test_a_base_that_is_gone_or_altered_is_made_again_and_its_adapters_are_not(
    harm: str, tmp_path: Path, outputs: str
) -> None:
    session = run(tmp_path, outputs)
    (base,) = addresses(session, "base")
    before = finished(session, "second")
    session.store.remove(addresses(session, "read"))
    if harm == "remove":
        session.store.remove([base])
    else:
        fs, root = fsspec.core.url_to_fs(session.store.location, use_listings_cache=False)
        (path,) = (path for path in fs.find(f"{root}/artifacts/toy_base") if path.endswith("number.txt"))
        with contextlib.suppress(FileNotFoundError):
            Path(path).chmod(0o644)
        fs.pipe_file(path, b"999.0")
        # The copy of a node was sound when it was made.
        for copy in (tmp_path / "cache").rglob("toy_base/*/*/number.txt"):
            copy.chmod(0o644)
            copy.write_text("999.0")
    session = run(tmp_path, outputs)
    assert sums(session) == [111, 112]
    assert finished(session, "second") == before
    # Each of the readers has met it once.
    assert outcomes(session) == {"read": Counter({Outcome.DAMAGED_INPUT.value: 2})}


def test_readers_of_a_base_that_cannot_be_made_again_are_blocked(tmp_path: Path) -> None:
    outputs = str(tmp_path / "out")
    session = run(tmp_path, outputs)
    session.store.remove([*addresses(session, "base"), *addresses(session, "read")])
    (tmp_path / "fails").touch()
    session = run(tmp_path, outputs, code=1)
    assert outcomes(session)["base"] == Counter({"failed": 1})
    (tmp_path / "fails").unlink()
    assert sums(run(tmp_path, outputs)) == [111, 112]


def test_a_base_is_kept_as_long_as_an_adapter_of_it_is(tmp_path: Path, outputs: str) -> None:
    session = run(tmp_path, outputs)

    def left() -> dict[str, int]:
        return dict(Counter(each.stage for each in session.store.committed(session.store.stages())))

    collect([session], ["base"], True)
    assert left() == {"toy_base": 1, "toy_adapter": 4, "toy_read": 2}
    collect([session], ["base", "first"], True)
    assert left() == {"toy_base": 1, "toy_adapter": 2, "toy_read": 2}
    collect([session], ["base", "second"], True)
    assert left() == {"toy_read": 2}


def test_an_adopted_adapter_refers_to_the_adopted_base(
    tmp_path: Path, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, outputs)
    later = Stage("toy_adapters:base", 2, toy_adapters.BaseConfig, "policy")
    monkeypatch.setattr(toy_adapters, "STAGES", {**toy_adapters.STAGES, "toy_base": later})
    file = tmp_path / "adapters.yaml"
    session = open_session(file, outputs=outputs)
    assert adopt(session, Former("toy_base", 1), 3, True).adopted == 7
    session = open_session(file, outputs=outputs)
    (base,) = addresses(session, "base")
    assert {manifest(session, each).refers_to for each in addresses(session, "second")} == {base}
    session.store.remove(addresses(session, "read"))
    assert sums(run(tmp_path, outputs)) == [111, 112]
    assert outcomes(session) == {}


def test_an_artifact_that_refers_to_what_its_step_did_not_read_is_rejected(tmp_path: Path) -> None:
    session = run(tmp_path, str(tmp_path / "out"), "stages.first.config.names=abc", code=1)
    (failed, *_) = session.store.histories(addresses(session, "first")).values()
    assert failed[0].outcome is Outcome.REJECTED
    assert failed[0].error == "its reference.json names the artifact toy_base/abc, which is none of its inputs"
