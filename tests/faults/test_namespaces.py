"""Drivers in containers of their own, on one store: none takes another one for dead because it cannot see it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from toy_runs import command, environment

from orchestrator.session import open_session

pytestmark = pytest.mark.faults

UNSHARE = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
#: Names the host, uses up so many process numbers, and starts a command.
INSIDE = 'hostname "$0"; for each in $(seq "$1"); do /bin/true; done; shift; "$@"; exit $?'


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    tried = subprocess.run([*UNSHARE, "hostname", "somewhere"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"containers cannot be imitated here: {tried.stderr.strip()}; only root may")


def start(host: str, before: int, line: list[str], said: Path) -> subprocess.Popen[bytes]:
    """A command in a host of that name with process numbers of its own."""
    with said.open("wb") as stream:
        return subprocess.Popen(
            [*UNSHARE, "sh", "-c", INSIDE, host, str(before), *line],
            env=environment(), stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 400
    while not condition():
        assert driver.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("hosts", [("x-vm", "vm"), ("vm", "vm")], ids=["one_name_ends_like_the_other", "one_name"])
def test_two_drivers_that_cannot_see_each_other_make_one_whole_artifact(tmp_path: Path, hosts: tuple[str, str]) -> None:
    path = toy_sweep.write_sweep(tmp_path, toy_sweep.PIECES.replace("FOLDER", str(tmp_path)))
    python, option, code, *rest = command(tmp_path, path, "--inline")
    said = [tmp_path / "first", tmp_path / "second"]
    drivers = []
    try:
        # Its process number is none of the other one's.
        drivers.append(start(hosts[0], 100, [python, option, code, *rest], said[0]))
        # Imports take longer than all the rest.
        late = code.replace("main()", f"import orchestrator.drive; toy.wait({str(tmp_path / 'begun')!r}); main()")
        drivers.append(start(hosts[1], 0, [python, option, late, *rest], said[1]))
        wait_for((tmp_path / "begun").exists, drivers[0])
        # It has looked through the store, and swept what it takes for dead.
        wait_for(lambda: "1 step to run" in said[1].read_text(), drivers[1])
        (tmp_path / "go").touch()
        codes = [driver.wait(400) for driver in drivers]
    finally:
        (tmp_path / "go").touch()
        for driver in drivers:
            driver.kill()
            driver.wait()
    printed = [each.read_text() for each in said]
    session = open_session(path, outputs=str(tmp_path / "out"))
    address = session.plan.address(0)
    folder = session.store.fetch(address)
    assert sorted(path.name for path in folder.iterdir()) == ["0.txt", "1.txt", "2.txt", "manifest.json"], printed
    assert codes == [0, 0], printed
    assert (tmp_path / "toy-trace").read_text().splitlines() == ["work"]
    assert pq.read_table(session.outputs.results)["value"].to_pylist() == [7.0]
    store = Path(session.outputs.store)
    assert not [*store.glob("trash/*"), *store.glob("claims/*/*")]
    assert session.store.histories([address]) == {}
