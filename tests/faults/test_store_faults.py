"""Signals, bit rot, full disks, edited code, wrong clocks, late writers: the store stays whole and the table right."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from long_sweep import COLUMNS, LONG, calm_table, with_ray
from small_disk import mounted
from test_execute import SLOW, command, environment

from orchestrator.attempt.attempt import store_at
from orchestrator.cli.show_run import run_and_show
from orchestrator.session import Session, open_session
from orchestrator.types import Artifact, Manifest

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def calm_toy(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return calm_table(tmp_path_factory.mktemp("calm") / "toy", toy.SWEEP)


@pytest.fixture(scope="module")
def calm_slow(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return calm_table(tmp_path_factory.mktemp("calm") / "slow", SLOW)


def check(folder: Path, calm: pa.Table, outputs: Path | None = None) -> Session:
    """Finished; the calm table, made of what the store has; each artifact is there once and whole; nothing is left."""
    session = open_session(folder / "toy.yaml", outputs=str(outputs or folder / "out"))
    assert session.schedule.done
    table = pq.read_table(session.outputs.results)
    assert len(set(table["cell_id"].to_pylist())) == table.num_rows == calm.num_rows
    assert table.select(COLUMNS).equals(calm)
    # Artifacts come first in the order of truth: a table that is made again is the same one.
    assert table.to_pylist() == session.results().table().to_pylist()
    store = Path(session.outputs.store)
    addresses = {session.plan.address(number) for number in range(len(session.plan))}
    assert {Artifact(path.parent.name, path.name) for path in (store / "artifacts").glob("*/*")} == addresses
    for address in addresses:
        session.store.fetch(address)
    assert not list((store / "scratch").iterdir())
    assert not list((store / "claims").rglob("*/*"))
    return session


def calls(folder: Path) -> int:
    """How often a stage was called so far, by whatever process."""
    trace = folder / "toy-trace"
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[str], seconds: float = 400) -> None:
    """Until a condition holds, or the driver has ended."""
    until = time.monotonic() + seconds
    while not condition() and driver.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.005)


def start(line: list[str], folder: Path | None = None, **more: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        line, env={**environment(), **more}, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(folder: Path, outputs: Path | None = None, **more: str) -> str:
    """The same command, undisturbed; returns what it printed."""
    line = command(folder, folder / "toy.yaml", "--inline")
    if outputs:
        line[line.index("--outputs") + 1] = str(outputs)
    driver = start(line, **more)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, printed
    return printed


# --- signals


@pytest.mark.long
def test_sigterm_at_random_instants_costs_at_most_the_step_in_flight(tmp_path: Path, calm: pa.Table) -> None:
    path = toy.write_sweep(tmp_path, LONG)
    chance = random.Random(0)
    drained = 0
    for turn in range(20):
        before = calls(tmp_path)
        driver = start(command(tmp_path, path, "--inline"))
        if turn % 2:
            # At any instant, its start included: before it listens, the signal's own effect is the same to a shell.
            time.sleep(chance.uniform(0.1, 1.0))
            expected = (143, -signal.SIGTERM)
        else:
            # While steps are computed and committed.
            wait_for(lambda before=before: calls(tmp_path) > before, driver)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.15))
            expected = (143,)
        driver.send_signal(signal.SIGTERM)
        printed, _ = driver.communicate(timeout=400)
        assert driver.returncode in expected, printed
        assert "Traceback" not in printed
        if driver.returncode == 143:
            assert "the same command goes on" in printed
            drained += 1
    assert drained >= 10
    assert calls(tmp_path) < 600
    finish(tmp_path)
    check(tmp_path, calm)
    assert 600 <= calls(tmp_path) <= 600 + drained


@pytest.mark.ray
@pytest.mark.long
def test_sigterm_of_a_driver_with_a_ray_of_its_own_lets_running_steps_commit(
    tmp_path: Path, calm: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy.write_sweep(tmp_path, LONG)
    # The grace time that a job has by itself is a second, which a bundle may need on a busy machine.
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "60")
    driver = start(with_ray(command(tmp_path, path)))
    wait_for(lambda: calls(tmp_path), driver)
    time.sleep(random.Random(1).uniform(0.0, 0.3))
    driver.send_signal(signal.SIGTERM)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 143, printed
    assert "the same command goes on" in printed
    assert 0 < calls(tmp_path) < 600
    finish(tmp_path)
    check(tmp_path, calm)
    # Steps of twenty milliseconds end within the grace time: none is computed again.
    assert calls(tmp_path) == 600


# --- bit rot

BELOW = {"toy_source": ["toy_double", "toy_total"], "toy_double": ["toy_total"], "toy_total": []}


def truncate(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def flip(path: Path, chance: random.Random) -> None:
    """One bit, as a disk does it: neither size nor time of change tell."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def remove(path: Path, _chance: random.Random) -> None:
    path.unlink()


Damage = Callable[[Path, random.Random], None]


def same_command(folder: Path, text: str = toy.SWEEP) -> int:
    """As a new process gives it: what this one has verified is forgotten."""
    store_at.cache_clear()
    return run_and_show(open_session(toy.write_sweep(folder, text), outputs=str(folder / "out")), None, True, None)


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
    more = toy.SWEEP.replace(
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
    text = toy.SWEEP.replace("shards: 2", "shards: 8")
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
    text = toy.SWEEP.replace("shards: 2, ", "").replace("results: [total]", "results: [source, total]")
    assert same_command(tmp_path, text) == 0
    table = tmp_path / "out/sweeps/toy/results.parquet"
    good = pq.read_table(table, columns=[*COLUMNS, "value"])
    assert None not in good["value"].to_pylist()
    victims = sorted((tmp_path / "out" / "store" / "artifacts" / "toy_source").iterdir())
    flip(victims[0] / "manifest.json", random.Random(4))
    assert same_command(tmp_path, text) == 0
    assert pq.read_table(table, columns=[*COLUMNS, "value"]).equals(good)


# --- full and read-only disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "16m") as folder:
        yield folder


def fill(disk: Path) -> None:
    """Until not one byte more can be written."""
    with (disk / "ballast").open("wb", buffering=0) as stream:
        for size in (65536, 4096, 1):
            try:
                while True:
                    stream.write(b"\0" * size)
            except OSError:
                pass


def freeze(disk: Path) -> None:
    """Read-only, whoever writes at the moment."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    for _ in range(1000):
        if subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], capture_output=True).returncode == 0:
            return
    raise AssertionError("somebody always writes")


@pytest.mark.parametrize(
    ("strike", "reason"), [(fill, "No space left on device"), (freeze, "Read-only file system")], ids=["full", "frozen"]
)
@pytest.mark.long
def test_a_disk_that_fails_in_mid_run_stops_the_sweep_with_the_remedy_and_the_same_command_goes_on(
    disk: Path, tmp_path: Path, calm: pa.Table, strike: Callable[[Path], None], reason: str
) -> None:
    path = toy.write_sweep(tmp_path, LONG)
    out = disk / "out"
    line = command(tmp_path, path, "--inline")
    line[line.index("--outputs") + 1] = str(out)
    driver = start(line)
    wait_for(lambda: calls(tmp_path) > 150, driver)
    assert driver.poll() is None
    strike(disk)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 2, printed
    assert reason in printed
    assert "give the same command again" in printed.replace("\n", " ")
    assert "Traceback" not in printed
    # What was published is whole, whatever the disk did.
    session = open_session(path, outputs=str(out))
    committed = [
        Artifact(each.parent.name, each.name) for each in (Path(session.outputs.store) / "artifacts").glob("*/*")
    ]
    assert 100 < len(committed) < 600
    for address in committed:
        session.store.fetch(address)
    # And it stopped at once: steps are not tried one after another on a disk that takes nothing.
    assert calls(tmp_path) <= len(committed) + 1
    if strike is fill:
        (disk / "ballast").unlink()
    else:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    before = calls(tmp_path)
    finish(tmp_path, out)
    assert calls(tmp_path) == before + 600 - len(committed)
    check(tmp_path, calm, out)


# --- edited code

#: A checkout of its own, whose stage of the doubles is a module that is imported when the first of them is computed.
EDITED = """\
import os
import toy
from workers.stage import Input, Stage
double = Stage("workers.doubling:double", 1, toy.TotalConfig, "number", {"number": Input("number")})
STAGES = {**toy.STAGES, "toy_double": double}
def connect():
    from orchestrator.run.executors.ray_start import start_ray
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    start_ray(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
              runtime_env={"env_vars": variables})
"""
DOUBLING = """\
import toy
def double(config, out, *, number):
    return toy.double(config, out, number=number)
"""
SYNTAX_ERROR = DOUBLING.replace("return toy", "return return toy")
ANOTHER_NUMBER = DOUBLING.replace("(config, out, number", "(config.model_copy(update={'add': 1000.0}), out, number")

SLOW_SOURCES = toy.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: slow}")
SLOW_EDITED = SLOW_SOURCES.replace("uses: [toy]", "uses: [edited]")


class Checkout:
    """A copy of the code that may be edited."""

    def __init__(self, folder: Path, ray: bool) -> None:
        self.folder = folder
        self.path = toy.write_sweep(folder, SLOW_EDITED)
        self.ray = ray
        code, root = folder / "code", Path(toy.__file__).parents[1]
        for package in ("orchestrator", "workers"):
            shutil.copytree(root / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "edited.py").write_text(EDITED)
        self.stage = code / "workers" / "doubling.py"
        self.stage.write_text(DOUBLING)
        # A file that is edited twice in one second would be taken from its compiled copy.
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(code), str(Path(toy.__file__).parent), str(folder)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, ray: bool) -> subprocess.Popen[str]:
        line = command(self.folder, self.path, *([] if ray else ["--inline"]))
        connect = " edited.connect();" if ray else ""
        line[2] = line[2].replace("import toy;", f"import edited;{connect}")
        # Python looks first where it was started.
        return start(line, self.folder / "code", **self.environment)

    def run_and_edit(self, content: str) -> tuple[int, str]:
        """Run, and edit the code of the doubles while the first source is computed."""
        driver = self.start(self.ray)
        wait_for(lambda: calls(self.folder), driver)
        self.stage.write_text(content)
        printed, _ = driver.communicate(timeout=400)
        return driver.returncode, printed

    def finish(self) -> None:
        """Undo the edit and give the command again, without Ray to save time."""
        self.stage.write_text(DOUBLING)
        driver = self.start(False)
        printed, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0, printed

    def manifests(self, stage: str) -> list[Manifest]:
        session = open_session(self.path, outputs=str(self.folder / "out"))
        found = session.store.manifests(list(session.store.committed([stage])))
        return [each for each in found.values() if isinstance(each, Manifest)]


@pytest.fixture(scope="module")
def calm_slow_sources(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return calm_table(tmp_path_factory.mktemp("calm") / "sources", SLOW_SOURCES)


RAY = pytest.param(True, id="ray", marks=[pytest.mark.ray, pytest.mark.long])
INLINE = pytest.param(False, id="inline")


@pytest.mark.parametrize("ray", [RAY])
@pytest.mark.long
def test_a_syntax_error_made_while_a_sweep_runs_fails_steps_clearly_and_once_undone_the_same_command_finishes(
    tmp_path: Path, calm_slow_sources: pa.Table, ray: bool
) -> None:
    checkout = Checkout(tmp_path, ray)
    code, printed = checkout.run_and_edit(SYNTAX_ERROR)
    assert code == 1, printed
    rows = pq.read_table(tmp_path / "out/sweeps/toy/results.parquet").to_pylist()
    assert len(rows) == 6
    # A worker that notices the edit before it falls over it would be as clear.
    words = {"SyntaxError": "doubling.py", "CodeChangedError": "code changed"}
    assert all(words[row["error_class"]] in row["error"] for row in rows)
    assert all(words[row["error_class"]] in Path(row["log"]).read_text() for row in rows)
    assert not checkout.manifests("toy_double")
    before, kept = calls(tmp_path), len(checkout.manifests("toy_source"))
    checkout.finish()
    assert calls(tmp_path) == before + 18 - kept
    check(tmp_path, calm_slow_sources)


@pytest.mark.parametrize("ray", [RAY, INLINE])
def test_results_of_code_that_was_edited_while_a_sweep_runs_are_never_mixed_in_unseen(
    tmp_path: Path, calm_slow_sources: pa.Table, ray: bool
) -> None:
    checkout = Checkout(tmp_path, ray)
    code, printed = checkout.run_and_edit(ANOTHER_NUMBER)
    doubles = checkout.manifests("toy_double")
    edited = {each.code_commit for each in doubles if each.metrics["total"] > 500}
    original = {each.code_commit for each in [*checkout.manifests("toy_source"), *doubles] if each.address not in
                {other.address for other in doubles if other.metrics["total"] > 500}}  # fmt: skip
    assert original
    # Either nothing was computed by the other code, or the manifests tell which.
    assert not edited & original, printed
    if not edited:
        assert code in (0, 1), printed
        checkout.finish()
        check(tmp_path, calm_slow_sources)


# --- clocks and late writers

SITE = """\
import os, time
_time, _time_ns, _shift = time.time, time.time_ns, int(os.environ.get("CLOCK_SHIFT", "0"))
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + _shift * 10**9
"""
HOURS = 3600


def shifted(folder: Path, hours: int) -> dict[str, str]:
    """The environment of a process whose clock is wrong."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE)
    python_path = os.pathsep.join([str(site), environment()["PYTHONPATH"]])
    return {"PYTHONPATH": python_path, "CLOCK_SHIFT": str(hours * HOURS)}


def test_two_drivers_whose_clocks_are_six_hours_apart_share_the_work_and_compute_no_step_twice(
    tmp_path: Path, calm_slow: pa.Table
) -> None:
    path = toy.write_sweep(tmp_path, SLOW)
    drivers = [start(command(tmp_path, path, "--inline"), **shifted(tmp_path, hours)) for hours in (-3, 3)]
    printed = [driver.communicate(timeout=400)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], printed
    assert calls(tmp_path) == 18
    session = check(tmp_path, calm_slow)
    found = session.store.manifests([session.plan.address(number) for number in range(len(session.plan))])
    finished = [each.finished - time.time() for each in found.values() if isinstance(each, Manifest)]
    # Both did some of it, by their own clocks.
    assert min(finished) < -2 * HOURS
    assert max(finished) > 2 * HOURS


@pytest.mark.parametrize(
    "hours", [pytest.param(-3, id="slow_clock"), pytest.param(3, id="fast_clock", marks=pytest.mark.long)]
)
def test_a_stopped_writer_whose_step_was_taken_over_wakes_up_late_and_changes_nothing(
    tmp_path: Path, calm_slow: pa.Table, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    path = toy.write_sweep(tmp_path, SLOW)
    late = start(command(tmp_path, path, "--inline"), **shifted(tmp_path, hours))
    try:
        # It sleeps inside a step: its claim is held, nothing is published.
        wait_for(lambda: "slow" in (tmp_path / "toy-trace").read_text() if calls(tmp_path) else False, late)
        late.send_signal(signal.SIGSTOP)
        assert late.poll() is None
        stopped = calls(tmp_path)
        (held,) = (tmp_path / "out" / "store" / "claims").rglob("*/*")
        taken = Artifact(held.parent.name, held.name)
        monkeypatch.setattr("orchestrator.run.loop.PATIENCE", 1.0)
        monkeypatch.setattr("orchestrator.run.loop._LOOK_AGAIN", 0.2)
        session = open_session(path, outputs=str(tmp_path / "out"))
        assert run_and_show(session, None, True, None) == 0
        # All but what the other had finished, and the step that it holds.
        assert calls(tmp_path) == 18 + 1
        assert stopped < 18
        folder = Path(session.outputs.store) / "artifacts" / taken.stage / taken.key
        published = {each.name: each.read_bytes() for each in folder.iterdir()}
    finally:
        late.send_signal(signal.SIGCONT)
    printed, _ = late.communicate(timeout=400)
    assert late.returncode == 0, printed
    # What was published first stays, to the byte.
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == published
    assert calls(tmp_path) == 18 + 1
    # The late one wrote the table last; it must tell what the store has, not what was dropped.
    check(tmp_path, calm_slow)


# --- two drivers


@pytest.mark.long
def test_of_two_drivers_one_is_killed_again_and_again_and_the_other_finishes_everything(
    tmp_path: Path, calm: pa.Table
) -> None:
    path = toy.write_sweep(tmp_path, LONG)
    chance = random.Random(5)
    line = command(tmp_path, path, "--inline")
    survivor = start(line)
    kills = 0
    while survivor.poll() is None and kills < 6:
        before = calls(tmp_path)
        victim = start(line)
        wait_for(lambda before=before: calls(tmp_path) > before + 5, survivor)  # type: ignore[misc]
        time.sleep(chance.uniform(0.4, 1.2))
        kills += victim.poll() is None
        victim.kill()
        victim.communicate()
    printed, _ = survivor.communicate(timeout=400)
    assert survivor.returncode == 0, printed
    assert kills >= 3
    assert 600 <= calls(tmp_path) <= 600 + kills
    # What the last victim held on a step that it had published is swept by the next command.
    assert "nothing to do" in finish(tmp_path)
    check(tmp_path, calm)


@pytest.mark.long
def test_of_two_drivers_either_may_be_killed_and_the_other_goes_on(tmp_path: Path, calm: pa.Table) -> None:
    path = toy.write_sweep(tmp_path, LONG)
    chance = random.Random(6)
    line = command(tmp_path, path, "--inline")
    drivers = [start(line), start(line)]
    wait_for(lambda: calls(tmp_path) > 60, drivers[0])
    time.sleep(chance.uniform(0.0, 0.5))
    victim = drivers.pop(chance.randrange(2))
    assert victim.poll() is None
    victim.kill()
    victim.communicate()
    assert calls(tmp_path) < 600
    printed, _ = drivers[0].communicate(timeout=400)
    assert drivers[0].returncode == 0, printed
    assert 600 <= calls(tmp_path) <= 601
    assert "nothing to do" in finish(tmp_path)
    check(tmp_path, calm)
