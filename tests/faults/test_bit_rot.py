"""Files that are cut, altered or lost: reported, set aside and made again by the same command."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_sweep
from drivers import check
from long_sweep import COLUMNS, calm_table

from orchestrator.attempt.attempt import store_at
from orchestrator.cli.show_run import run_and_show
from orchestrator.session import open_session

pytestmark = pytest.mark.faults


BELOW = {"toy_source": ["toy_double", "toy_total"], "toy_double": ["toy_total"], "toy_total": []}


def truncate(path: Path, chance: random.Random) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def flip(path: Path, chance: random.Random) -> None:
    """One bit, as a disk does it: neither size nor time of change tell."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def remove(path: Path, _chance: random.Random) -> None:
    path.unlink()


Damage = Callable[[Path, random.Random], None]


def same_command(folder: Path, text: str = toy_sweep.SWEEP) -> int:
    """As a new process gives it: what this one has verified is forgotten."""
    store_at.cache_clear()
    return run_and_show(
        open_session(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out")), None, True, None
    )


@pytest.mark.parametrize("damage", [truncate, flip, remove])
@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("toy_source", "number.txt"),
        ("toy_source", "manifest.json"),
        ("toy_double", "number.txt"),
        ("toy_double", "manifest.json"),
        # Its number is read by nobody: see the next test.
        ("toy_total", "manifest.json"),
    ],
)
def test_damage_of_any_kind_to_any_kind_of_artifact_is_reported_set_aside_and_mended(
    tmp_path: Path, calm_toy: pa.Table, capsys: pytest.CaptureFixture[str], stage: str, name: str, damage: Damage
) -> None:
    chance = random.Random(f"{stage} {name} {damage.__name__}")
    assert same_command(tmp_path) == 0
    store = tmp_path / "out" / "store"
    for round in range(1, 4):
        victim = chance.choice(sorted((store / "artifacts" / stage).iterdir()))
        damage(victim / name, chance)
        broken = {path.name: path.read_bytes() for path in victim.iterdir()}
        # What lies above finished work is not looked at; so what lies below is lost as well.
        for other in BELOW[stage]:
            shutil.rmtree(store / "artifacts" / other)
        capsys.readouterr()
        assert same_command(tmp_path) == 0
        assert "damaged" in capsys.readouterr().out
        aside = sorted((store / "damaged").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        assert len(aside) == round
        assert aside[-1].name.startswith(f"{stage}-{victim.name}-")
        assert {path.name: path.read_bytes() for path in (aside[-1] / "artifact").iterdir()} == broken
        check(tmp_path, calm_toy)


def test_damage_to_a_result_that_nobody_reads_yet_is_found_by_its_first_reader(
    tmp_path: Path, calm_toy: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(2)
    assert same_command(tmp_path) == 0
    victims = sorted((tmp_path / "out" / "store" / "artifacts" / "toy_total").iterdir())
    damages: list[Damage] = [truncate, flip, remove]
    for victim, damage in zip(victims, damages * 2, strict=True):
        damage(victim / "number.txt", chance)
    # The table has its numbers from the manifests.
    assert same_command(tmp_path) == 0
    assert pq.read_table(tmp_path / "out/sweeps/toy/results.parquet", columns=COLUMNS).equals(calm_toy)
    capsys.readouterr()
    more = toy_sweep.SWEEP.replace(
        "results: [total]", "  last: {stage: toy_double, inputs: {number: total}}\nresults: [last]"
    )
    assert same_command(tmp_path, more) == 0
    assert "damaged" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "store" / "damaged").iterdir())) == 6
    totals = pq.read_table(tmp_path / "out/sweeps/toy/results.parquet")["total"].to_pylist()
    assert totals == [2 * each for each in calm_toy["total"].to_pylist()]
    # And the sweep as it was has everything whole again.
    shutil.rmtree(tmp_path / "out" / "sweeps")
    assert same_command(tmp_path) == 0
    assert pq.read_table(tmp_path / "out/sweeps/toy/results.parquet", columns=COLUMNS).equals(calm_toy)


def test_twenty_damages_at_once_are_mended_by_one_command(tmp_path: Path) -> None:
    # Each total reads eight numbers.
    text = toy_sweep.SWEEP.replace("shards: 2", "shards: 8")
    calm = calm_table(tmp_path / "calm", text)
    assert same_command(tmp_path, text) == 0
    artifacts = tmp_path / "out" / "store" / "artifacts"
    chance = random.Random(3)
    victims = chance.sample(sorted((artifacts / "toy_double").iterdir()), 20)
    for victim in victims:
        damage: Damage = chance.choice([truncate, flip, remove])
        damage(victim / chance.choice(["number.txt", "manifest.json"]), chance)
    shutil.rmtree(artifacts / "toy_total")
    assert same_command(tmp_path, text) == 0
    aside = list((tmp_path / "out" / "store" / "damaged").iterdir())
    assert {path.name.split("-")[1] for path in aside} == {victim.name for victim in victims}
    assert len(aside) == 20
    check(tmp_path, calm)


def test_a_reported_number_of_a_step_that_feeds_others_survives_damage_to_its_manifest(tmp_path: Path) -> None:
    # `source` is reported and is no target: its numbers stand in the table beside those of the finished targets.
    text = toy_sweep.SWEEP.replace("shards: 2, ", "").replace("results: [total]", "results: [source, total]")
    assert same_command(tmp_path, text) == 0
    table = tmp_path / "out/sweeps/toy/results.parquet"
    good = pq.read_table(table, columns=[*COLUMNS, "value"])
    assert None not in good["value"].to_pylist()
    victims = sorted((tmp_path / "out" / "store" / "artifacts" / "toy_source").iterdir())
    flip(victims[0] / "manifest.json", random.Random(4))
    assert same_command(tmp_path, text) == 0
    assert pq.read_table(table, columns=[*COLUMNS, "value"]).equals(good)
