"""One file of a finished sweep is damaged: every command says so or mends it, and what is whole is kept."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_sweep
from command_server import sweep
from mutations import several

from orchestrator.results.parquet import read_results

pytestmark = pytest.mark.faults

SWEEP = (
    toy_sweep.FAILING_CELL.replace("x: [1, 2, 3]", "x: [1]")
    .replace("y: [10, 20]", "y: [10]")
    .replace("kind:", "kind:\n    loud: {behaviour: print}")
)


def replaced(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def replace(path: Path, _: random.Random) -> None:
        path.unlink()
        make(path)

    return replace


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def garble(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(300))


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "bits": flip,
    "garbage": garble,
    "nothing in it": lambda path, _: path.write_bytes(b"") and None,
    "half": lambda path, _: os.truncate(path, path.stat().st_size // 2),
    "other JSON": replaced(lambda path: path.write_text("[]")),
    "deep JSON": replaced(lambda path: path.write_text("[" * 100_000)),
    "a folder": replaced(Path.mkdir),
    "a FIFO": replaced(os.mkfifo),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a link to a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "nothing": replaced(lambda path: None),
}

COMMANDS = (
    ("status", "--json"), ("plan",), ("why", "CELL"), ("show", "CELL"), ("results",), ("verify",), ("gc",),
    ("run", "--inline"),
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose sweep was run; one of its cells fails."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    folder.mkdir()
    toy_sweep.write_sweep(folder, SWEEP)
    assert sweep(folder, "run", "toy.yaml", "--inline").returncode == 1
    assert sweep(folder, "pin", "toy.yaml", "--name", "paper").returncode == 0
    return folder


@pytest.mark.parametrize("seed", range(several(1)))
def test_no_command_hangs_or_shows_a_traceback_and_the_table_is_as_before(
    tmp_path: Path, whole: Path, seed: int
) -> None:
    chance = random.Random(seed)
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    outputs = folder / "outputs"
    before = read_results(outputs / "sweeps" / "toy")
    files = sorted(path for path in outputs.rglob("*") if path.is_file() and path.stat().st_size)
    # Each file in turn, however many cells the sweep has.
    path, kind = files[seed * 7 % len(files)], list(DAMAGE)[seed % len(DAMAGE)]
    kept = {each: each.read_bytes() for each in files if each != path and "artifacts" in each.parts}
    DAMAGE[kind](path, chance)
    for verb, *words in COMMANDS:
        given = [before["cell_id"][0].as_py() if word == "CELL" else word for word in words]
        done = sweep(folder, verb, "toy.yaml", *given)
        assert done.returncode in (0, 1, 2), (path, kind, verb, done.stderr)
        assert "Traceback" not in done.stderr, (path, kind, verb, done.stderr)
    if path.name == "results.parquet" and path.is_dir():
        # Somebody may need what is in a folder: it is theirs to remove.
        assert "results.parquet cannot be written: Is a directory" in done.stderr
        path.rmdir()
        assert sweep(folder, "results", "toy.yaml").returncode == 0
    after = read_results(outputs / "sweeps" / "toy")
    unchanged = [name for name in before.column_names if name not in ("seconds", "attempts", "log")]
    assert after.select(unchanged).equals(before.select(unchanged)), (path, kind)
    together = [each for each in kept if path.parent in each.parents]
    assert all(each.read_bytes() == content for each, content in kept.items() if each not in together), (path, kind)
