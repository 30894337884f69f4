"""Drivers that want one step, of which one at a time goes on, from one change of the store to the next.

The leases are the product's own. A driver stops wherever it is about to change something, and waits there to be let go
on: so any order of the changes of all drivers can be tried, with deaths and lost answers between them. What nobody may
do is checked with every change; `World.check` checks what must hold at all times.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from greenlet import greenlet
from store_samples import ADDRESS

from orchestrator.store import ClaimedError, DamagedArtifactError, Lease, LostOutputError, StoreError, list_files
from orchestrator.store.lease import TERM, Claim, Claims, Stillness, parse_claim
from orchestrator.store.posix_lease import PosixClaims
from orchestrator.store.posix_medium import PosixMedium
from orchestrator.store.process import Process
from orchestrator.store.records import parse_manifest
from orchestrator.types import Artifact, Manifest

STAGE, KEY = ADDRESS


class Driver:
    """A driver with one worker: it does one thing after the other."""

    def __init__(self, world: World, number: int, space: str) -> None:
        self.world = world
        self.name = f"driver{number}"
        self.process = Process(space, 1000 + number, number)
        self.claims: Claims = world.claims_of(self)
        self.claims._stillness = Stillness(lambda: world.time)
        self.tokens: set[str] = set()
        self.seen: dict[str, Claim] = {}
        """Token -> the claim, as it was seen last."""
        self.told: Claim | None = None
        """The claim that kept it out last."""
        self.stale: Claim | None = None
        """The claim that it takes for expired."""
        self.lease: Lease | None = None
        self.doing: greenlet | None = None
        self.lost_answer = False
        self.cut_off = False

    # --- what it does

    def take(self, stale: bool) -> None:
        if self.lease:
            return
        token = f"{next(self.world.numbers):016x}"
        self.tokens.add(token)
        # Anybody may take what it has seen for expired at any time, however long that is ago.
        last = self.told or max(self.seen.values(), key=lambda claim: claim.epoch, default=None) if stale else None
        self.stale = last
        try:
            self.lease = self.claims.take(ADDRESS, self.name, last.to_text() if last else None, token)
        except ClaimedError as error:
            self.told = parse_claim(error.holder)
            return
        finally:
            self.stale = None
        if self.world.artifact():
            self.give_up()

    def write(self, revive: bool) -> None:
        """Write one half of the artifact after the other; a stage may make its folder again where it is gone."""
        if self.lease is None:
            return
        for name in ("first", "second"):
            with contextlib.suppress(FileNotFoundError):
                if revive:
                    self.lease.folder.mkdir(parents=True, exist_ok=True)
                (self.lease.folder / name).write_text(self.lease.claim.token)
            self.world.stop(self)

    def commit(self) -> None:
        if self.lease is None:
            return
        try:
            files = list_files(self.lease.folder)
        except Exception:
            return self.give_up()
        if files.keys() < {"first", "second"}:
            return None
        token = self.lease.claim.token
        manifest = Manifest(ADDRESS, "{}", files, {"m": float(int(token, 16))}, 1, 0.5, 100.0, "host", "abc")
        try:
            if not self.lease.commit(manifest) and not self.world.artifact():
                self.world.set_aside()
        except LostOutputError:
            pass
        except StoreError:
            # May be called again.
            return None
        return self.give_up()

    def renew(self) -> None:
        if self.lease and self.lease.descriptor is not None:
            with contextlib.suppress(OSError, StoreError):
                self.lease.renew()

    def give_up(self) -> None:
        lease, self.lease = self.lease, None
        if lease:
            with contextlib.suppress(OSError, StoreError):
                lease.release()
            lease.close()

    def sweep(self) -> None:
        self.claims.sweep(None, None, everywhere=True)

    def look(self) -> None:
        self.told = next(iter(self.claims.look(ADDRESS)), None)

    def saw(self, claims: Iterable[Claim]) -> None:
        self.seen.update({claim.token: claim for claim in claims})


class World:
    """One step of one store, and the drivers that want it."""

    def __init__(self, folder: Path, drivers: int) -> None:
        self.folder = folder
        self.time = 0.0
        self.wall = 1e9
        self.numbers = itertools.count(1)
        self.main = greenlet.getcurrent()
        self.acting: Driver | None = None
        self.ended: list[greenlet] = []
        self.dead: set[Process] = set()
        self.out: set[str] = set()
        """Tokens of claims that were evicted or given back."""
        self.changed: dict[str, float] = {}
        """Token -> when its claim showed life last."""
        self.broken: list[str] = []
        """What was done that nobody may do."""
        self.published: set[str] = set()
        """Tokens of claims whose manifests were written, or met another one."""
        self.decided: list[str] = []
        """Tokens of claims that were committed."""
        self.found: dict[str, str] | None = None
        self.drivers: list[Driver] = []
        for _ in range(drivers):
            self.add()

    def add(self) -> Driver:
        """Add a driver; every second one is on another machine than the others."""
        number = next(self.numbers)
        self.drivers.append(Driver(self, number, f"space{number % 2}"))
        return self.drivers[-1]

    # --- letting them act

    def start(self, driver: Driver, action: Callable[[Driver], None]) -> None:
        """Begin an action unless another one is under way, and go on up to its first change."""
        if driver.doing is None:
            driver.doing = greenlet(lambda: action(driver), self.main)
            self.go_on(driver)

    def go_on(self, driver: Driver) -> None:
        """Make the change that a driver stands before, and go on up to the next one."""
        if driver.doing is not None:
            self.acting = driver
            try:
                driver.doing.switch()
            except (OSError, StoreError):
                # Its attempt ends, and the lease with it.
                driver.doing = None
                self.start(driver, Driver.give_up)
            finally:
                self.acting = None
            if driver.doing is not None and driver.doing.dead:
                driver.doing = None

    def stop(self, driver: Driver | None = None) -> None:
        """Wait to be let go on; called where a driver is about to change something."""
        if self.acting and self.acting.doing is greenlet.getcurrent():
            self.main.switch()

    def crash(self, driver: Driver) -> None:
        """Kill a process; a new driver comes in its place."""
        if driver.doing is not None:
            # It is kept, so that nothing of it is cleaned up.
            self.ended.append(driver.doing)
        if driver.lease:
            self.ended.append(driver.lease)
        self.dead.add(driver.process)
        self.drivers.remove(driver)
        self.add()

    def finish(self, driver: Driver) -> None:
        """Go on until an action has ended."""
        while driver.doing is not None:
            self.go_on(driver)

    def gone(self, process: Process) -> bool:
        """Tell what a process knows of another one; it stands for `Process.gone`."""
        return bool(self.acting) and process.space == self.acting.process.space and process in self.dead  # type: ignore[union-attr]

    def this_process(self) -> Process:
        """Return the acting process; it stands for `this_process`."""
        assert self.acting
        return self.acting.process

    def held_here(self, token: str) -> bool:
        """Tell whether a lease is the acting process's; it stands for `held_here`."""
        return self.acting is not None and token in self.acting.tokens

    # --- what nobody may do

    def may_end(self, token: str, how: str) -> None:
        """Note the end of a claim: only its holder commits or gives back, and others evict what they have seen."""
        acting = self.acting
        assert acting
        if token in acting.tokens:
            if how == "commit":
                self.demand(token not in self.out, f"{acting.name} commits after its claim was evicted")
                self.demand(not self.decided, "a step is committed twice")
                self.decided.append(token)
        else:
            self.demand(how == "evict", f"{acting.name} does {how} with the claim of another driver")
            claim = acting.seen.get(token)
            self.demand(claim is not None, f"{acting.name} evicts a claim that it has never seen")
            if claim:
                expired = claim == acting.stale or self.time - self.changed[token] >= TERM
                over = claim.driver == acting.name or claim.process in self.dead
                self.demand(expired or over, f"{acting.name} evicts a claim that has not expired")
        self.out.add(token)

    def demand(self, holds: bool, otherwise: str) -> None:
        """Note what nobody may do, for `check`: an error here would be taken for one of the store."""
        if not holds:
            self.broken.append(otherwise)

    def check(self) -> None:
        """Check that there is at most one valid lease, and that what is committed is whole and stays as it is."""
        assert not self.broken, self.broken[0]
        valid = [driver.name for driver in self.drivers if driver.lease and self.is_valid(driver.lease)]
        assert len(valid) <= 1, f"two valid leases: {valid}"
        artifact = self.artifact()
        if artifact:
            assert set(artifact.values()) == {artifact["first"]}, f"parts of two attempts: {artifact}"
            assert self.found in (None, artifact), "a committed artifact was replaced"
        assert artifact or not self.found, "a committed artifact is lost"
        self.found = artifact

    def discard(self) -> None:
        """Do what a reader does with an artifact that was damaged: set it aside, so that it is made again."""
        if self.artifact():
            self.set_aside()
            self.found = None
            self.decided.clear()

    # --- the medium

    def claims_of(self, driver: Driver) -> Claims:
        raise NotImplementedError

    def is_valid(self, lease: Lease) -> bool:
        raise NotImplementedError

    def artifact(self) -> dict[str, str] | None:
        """Read what is committed: the files and, from the manifest, who made it."""
        raise NotImplementedError

    def set_aside(self) -> None:
        """Take away what is in the place of the artifact."""
        raise NotImplementedError


class PosixWorld(World):
    """A folder of a POSIX file system. A lost answer is one of NFS: asked again, the server says that it is done."""

    def claims_of(self, driver: Driver) -> Claims:
        return SeenPosixClaims(PosixMedium(self.folder), System(self, driver))

    def is_valid(self, lease: Lease) -> bool:
        return lease.same_folder(self.folder / "claims" / STAGE / KEY / lease.claim.name)

    def artifact(self) -> dict[str, str] | None:
        place = self.folder / "artifacts" / STAGE / KEY
        try:
            manifest = parse_manifest(ADDRESS, (place / "manifest.json").read_bytes())
        except (OSError, DamagedArtifactError):
            return None
        made = {name: (place / name).read_text() for name in manifest.files}
        return made | {"manifest": f"{int(manifest.metrics['m']):016x}"}

    def set_aside(self) -> None:
        shutil.rmtree(self.folder / "artifacts" / STAGE / KEY, ignore_errors=True)


class SeenPosixClaims(PosixClaims):
    """Claims that remember what was seen of them."""

    def look(self, address: Artifact) -> list[Claim]:
        found = super().look(address)
        self.system.driver.saw(found)
        return found

    def _found(self) -> Iterator[tuple[Artifact, Claim | None, str]]:
        for found in super()._found():
            self.system.driver.saw([found[1]] if found[1] else [])
            yield found


class System:
    """The system calls that change a folder, for one driver."""

    def __init__(self, world: World, driver: Driver) -> None:
        self.world = world
        self.driver = driver

    def mkdir(self, path: str) -> None:
        self._do(errno.EEXIST, path, lambda: os.mkdir(path))  # noqa: PTH102

    def rmdir(self, path: str) -> None:
        self._do(errno.ENOENT, path, lambda: os.rmdir(path))  # noqa: PTH106

    def utime(self, path: Path) -> None:
        self.world.wall += 1
        self.world.changed[str(path).split("/")[-1].split("-")[1]] = self.world.time
        self._do(None, path, lambda: os.utime(path, (self.world.wall, self.world.wall)))

    def rename(self, source: str | Path, target: str) -> None:
        def rename() -> None:
            claim = parse_claim(Path(source).name)
            os.rename(source, target)  # noqa: PTH104
            if claim and "/artifacts/" in target and Path(target, "manifest.json").exists():
                self.world.may_end(claim.token, "commit")
            if "/trash/" in target and f"/{STAGE}/{KEY}" in str(source):
                for each in [claim] if claim else map(parse_claim, os.listdir(target)):  # noqa: PTH208
                    if each:
                        self.world.may_end(each.token, "release" if each.token in self.driver.tokens else "evict")
            elif not claim:
                self.world.changed[Path(source).name[1:]] = self.world.time

        self._do(errno.ENOENT, source, rename)

    def _do(self, lost: int | None, path: str | Path, change: Callable[[], None]) -> None:
        self.world.stop()
        if self.driver.cut_off:
            self.driver.cut_off = False
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        change()
        if self.driver.lost_answer and lost is not None:
            self.driver.lost_answer = False
            raise OSError(lost, os.strerror(lost), str(path))
