"""A version raised for nothing costs nothing: what the old one made is taken over, if it is provably the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import toy
import toy_sweep
from pydantic import Field
from typer.testing import CliRunner

from orchestrator.attempt.rerun import Verdict
from orchestrator.cli.app import app
from orchestrator.cli.show_run import run_and_show
from orchestrator.maintenance.adopt import Adoption, adopt, read_former
from orchestrator.maintenance.gc import collect
from orchestrator.results.parquet import read_results
from orchestrator.session import Session, open_session
from orchestrator.sweep.problems import SweepError
from orchestrator.types import Artifact, Manifest

TEXT = toy_sweep.SWEEP.replace("behaviour: work", "behaviour: print")
#: The same sweep with a stage that is fed by itself.
TWICE = TEXT.replace("inputs: {numbers: double}", "inputs: {numbers: again}").replace(
    "  total:\n", "  again: {stage: toy_double, inputs: {number: double}, config: {add: 1}}\n  total:\n"
)


#: `tests/store` proves that both stores keep one contract; so here the tests of objects are long, but for one.
@pytest.fixture(params=["posix", pytest.param("objects", marks=[pytest.mark.s3, pytest.mark.long])])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "posix" else str(request.getfixturevalue("s3"))


double = toy.double


def open_toy(folder: Path, outputs: str, text: str = TEXT) -> Session:
    return open_session(toy_sweep.write_sweep(folder, text), outputs=outputs)


def run(folder: Path, outputs: str, text: str = TEXT) -> Session:
    session = open_toy(folder, outputs, text)
    assert run_and_show(session, None, True, None) == 0
    return session


def calls(folder: Path) -> int:
    return len((folder / "toy-trace").read_text().splitlines())


def raise_version(
    monkeypatch: pytest.MonkeyPatch,
    stage: str = "toy_double",
    version: int = 2,
    function: Callable[..., toy.Metrics] | None = None,
) -> None:
    monkeypatch.setitem(toy.STAGES, stage, replace(toy.STAGES[stage], version=version))
    monkeypatch.setattr(toy, "double", function or double)


def take_over(session: Session, yes: bool = True, reruns: int = 3, stage: str = "toy_double") -> Adoption:
    return adopt(session, read_former(session, stage, 1, ()), reruns, yes)


def there(session: Session) -> set[Artifact]:
    return session.store.committed(session.plan.stages)


def louder(config: toy.TotalConfig, out: Path, *, number: Path) -> toy.Metrics:
    """The same metrics as `double`, in other words."""
    metrics = double(config, out, number=number)
    (out / "number.txt").write_text(f"{float((out / 'number.txt').read_text()):.3f}")
    return metrics


def bigger(config: toy.TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
    """Another metric, in the same words."""
    return {"total": float(double(config, out, number=number)["total"]) + 1}


def broken(config: toy.TotalConfig, out: Path, *, number: Path) -> dict[str, float]:
    raise ValueError("a mistake of the new version")


@pytest.mark.parametrize("text", [TEXT, TWICE], ids=["once", "twice"])
def test_after_an_adoption_the_sweep_has_nothing_to_do_and_the_same_numbers(
    tmp_path: Path, outputs: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = run(tmp_path, outputs, text)
    table = read_results(old.outputs.folder)
    raise_version(monkeypatch)
    session = open_toy(tmp_path, outputs, text)
    changed = len(old.plan) - 6
    assert session.schedule.needed.sum() == changed
    adoption = take_over(session)
    assert adoption.proven
    assert (adoption.adopted, sum(adoption.by_entry.values()), adoption.damaged) == (changed, changed, [])
    assert len(adoption.reruns) == 3
    before = calls(tmp_path)
    capsys.readouterr()
    again = run(tmp_path, outputs, text)
    assert calls(tmp_path) == before
    assert "nothing to do" in capsys.readouterr().out
    names = [name for name in table.column_names if name != "key"]
    assert read_results(again.outputs.folder).select(names).equals(table.select(names))
    assert read_results(again.outputs.folder)["key"].to_pylist() == [again.plan.cell_key(n) for n in range(6)]


class Batched(toy.TotalConfig):
    """The config of a stage whose batch size was a part of its identity."""

    batch: int = 5
    part: dict[str, int] = Field(default_factory=lambda: {"rows": 7})


def test_fields_that_left_the_identity_are_adopted_by_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = str(tmp_path / "out")
    with monkeypatch.context() as before:
        before.setitem(toy.STAGES, "toy_double", replace(toy.STAGES["toy_double"], config=Batched))
        old = run(tmp_path, outputs)
    session = open_toy(tmp_path, outputs)
    assert session.schedule.needed.sum() == len(old.plan) - 6
    none = adopt(session, read_former(session, None, None, ["double.batch=64", "double.part={rows: 7}"]), 3, True)
    assert not none.numbers
    adoption = adopt(session, read_former(session, None, None, ["double.batch=5", "double.part={rows: 7}"]), 3, True)
    assert adoption.proven
    assert {each.entry for each in adoption.reruns} == {"double"}
    assert adoption.adopted == len(old.plan) - 6
    capsys.readouterr()
    run(tmp_path, outputs)
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "version", "was", "message"),
    [
        (None, None, [], "name what was changed: STAGE --from-version N, --edited, or --was ENTRY.FIELD=VALUE"),
        ("toy_double", None, [], "name the stage whose version was raised, and the one before"),
        (None, 1, [], "name the stage whose version was raised, and the one before"),
        (None, None, ["duoble.batch=5"], "there is no entry 'duoble'; did you mean 'double'?"),
        (None, None, ["double=5"], "write ENTRY.FIELD=VALUE"),
    ],
)
def test_what_was_changed_is_named_or_asked_for(
    tmp_path: Path, stage: str | None, version: int | None, was: list[str], message: str
) -> None:
    with pytest.raises(SweepError) as caught:
        read_former(open_toy(tmp_path, str(tmp_path / "out")), stage, version, was)
    assert message in str(caught.value)


@pytest.mark.parametrize("outputs", ["posix", pytest.param("objects", marks=pytest.mark.s3)], indirect=True)
def test_an_adopted_manifest_tells_where_it_comes_from_and_keeps_the_rest(
    tmp_path: Path, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = run(tmp_path, outputs)
    raise_version(monkeypatch)
    session = open_toy(tmp_path, outputs)
    take_over(session)
    for number in range(6, 18):
        before, after = old.plan.address(number), session.plan.address(number)
        assert before != after
        found = session.store.manifests([before, after])
        known, taken = found[before], found[after]
        assert isinstance(known, Manifest)
        assert isinstance(taken, Manifest)
        assert taken == replace(
            known, address=after, identity=session.plan.step(number).identity, adopted=before.key, upload=taken.upload
        )
        assert session.store.inspect(taken) is None
        assert session.store.fetch(after).joinpath("number.txt").read_text()


def test_the_old_sweep_works_on_and_what_was_adopted_outlives_its_end(
    tmp_path: Path, outputs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = run(tmp_path, outputs)
    with monkeypatch.context() as raised:
        raise_version(raised)
        take_over(open_toy(tmp_path, outputs))
    before = calls(tmp_path)
    capsys.readouterr()
    run(tmp_path, outputs)
    assert "nothing to do" in capsys.readouterr().out
    raise_version(monkeypatch)
    session = open_toy(tmp_path, outputs)
    collect([session], [], True)
    assert there(session) == {session.plan.address(number) for number in range(18)}
    assert not there(session) & {old.plan.address(number) for number in range(6, 18)}
    manifests = session.store.manifests([session.plan.address(number) for number in range(18)])
    for address, manifest in manifests.items():
        assert isinstance(manifest, Manifest)
        assert session.store.inspect(manifest) is None
        if address.stage == "toy_total":
            # What it printed lies under the key of the old version, and was kept for it.
            assert manifest.log
            assert manifest.adopted in {key for _, key in session.store.tried(["toy_total"])}
    capsys.readouterr()
    run(tmp_path, outputs)
    assert "nothing to do" in capsys.readouterr().out
    assert calls(tmp_path) == before


@pytest.mark.parametrize(
    ("function", "verdict"),
    [("louder", Verdict.OTHER_BYTES), ("bigger", Verdict.DIFFERENT), ("broken", Verdict.RAISED)],
)
def test_where_the_output_changed_nothing_is_adopted(
    tmp_path: Path, outputs: str, function: str, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, outputs)
    raise_version(monkeypatch, function=globals()[function])
    session = open_toy(tmp_path, outputs)
    before = there(session)
    adoption = take_over(session)
    assert not adoption.proven
    assert adoption.adopted == 0
    assert {each.verdict for each in adoption.reruns} == {verdict}
    assert there(session) == before


def test_without_yes_all_is_proven_and_nothing_published(
    tmp_path: Path, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, outputs)
    raise_version(monkeypatch)
    session = open_toy(tmp_path, outputs)
    before = there(session)
    adoption = take_over(session, yes=False, reruns=100)
    assert (adoption.proven, adoption.adopted, len(adoption.reruns)) == (True, 0, 6)
    assert adoption.by_entry == {"double": 6, "total": 6}
    assert there(session) == before
    assert toy.STAGES["toy_double"].version == 2


def test_an_old_artifact_that_is_damaged_is_left_out_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = str(tmp_path / "out")
    old = run(tmp_path, outputs)
    artifacts = tmp_path / "out" / "store" / "artifacts"
    torn, lacking = old.plan.address(16), old.plan.address(17)
    (artifacts / torn.stage / torn.key / "manifest.json").write_text("{")
    (artifacts / lacking.stage / lacking.key / "number.txt").unlink()
    raise_version(monkeypatch)
    adoption = take_over(open_toy(tmp_path, outputs))
    assert (adoption.adopted, len(adoption.damaged)) == (10, 2)
    before = calls(tmp_path)
    run(tmp_path, outputs)
    assert calls(tmp_path) == before + 2


def test_what_the_new_version_made_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = str(tmp_path / "out")
    run(tmp_path, outputs)
    raise_version(monkeypatch)
    partly = open_session(tmp_path / "toy.yaml", None, ["x=1"], None, outputs=outputs)
    assert run_and_show(partly, None, True, None) == 0
    session = open_toy(tmp_path, outputs)
    assert take_over(session).adopted == 12 - 4
    manifests = session.store.manifests([session.plan.address(number) for number in range(6, 18)]).values()
    assert sum(isinstance(each, Manifest) and each.adopted is None for each in manifests) == 4
    assert take_over(open_toy(tmp_path, outputs)).numbers == []


def test_what_cannot_be_proven_or_makes_no_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = str(tmp_path / "out")
    old = run(tmp_path, outputs)
    with pytest.raises(SweepError, match="that is the version of 'toy_double' now"):
        take_over(old)
    with pytest.raises(SweepError, match="did you mean 'toy_double'"):
        take_over(old, stage="toy_doubel")
    collect([old], ["source"], True)
    raise_version(monkeypatch)
    session = open_toy(tmp_path, outputs)
    before = there(session)
    with pytest.raises(SweepError, match="none can be run again to prove"):
        take_over(session)
    assert there(session) == before


def test_the_command_says_what_it_would_adopt_and_how_and_then_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = str(tmp_path / "out")
    run(tmp_path, outputs)
    file = str(tmp_path / "toy.yaml")
    raise_version(monkeypatch)
    arguments = ["adopt", file, "toy_double", "--from-version", "1", "--outputs", outputs]
    monkeypatch.setattr("sys.argv", ["sweep"])
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    command = said.stdout.split("to adopt it: ")[1].splitlines()[0]
    assert command == f"sweep adopt {file} toy_double --from-version 1 --rerun 3 --yes --outputs {outputs}"
    raise_version(monkeypatch, function=bigger)
    refused = CliRunner().invoke(app, command.split()[1:])
    assert refused.exit_code == 1
    assert "different  double x=1 (toy_double/" in refused.stdout
    assert "nothing was adopted" in refused.stdout
    raise_version(monkeypatch)
    done = CliRunner().invoke(app, [*command.split()[1:], "--json"])
    report = json.loads(done.stdout)
    assert (report["proven"], report["adopted"], report["to_adopt"]) == (True, 12, {"double": 6, "total": 6})
    assert "nothing to adopt" in CliRunner().invoke(app, arguments).stdout
