"""A store in a folder: whether its file system keeps what leases and artifacts rely on (decision 16)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.doctor.examination import Probe
from orchestrator.doctor.file_system import existing, kind_of, room
from orchestrator.doctor.finding import Finding, State, ok, warning, wrong
from orchestrator.doctor.race import RACERS, ROUNDS, race
from orchestrator.store import remedy
from orchestrator.store.lease import BEAT
from orchestrator.store.posix_medium import create_file, flush_file_system

#: The longest name that is tried: a claim's has up to 200 characters, with the driver, the process and its host.
_NAME = 200
#: Seconds by which the clock of a file server may differ from ours before that is told.
_SKEW = 5.0
_ELSEWHERE = "choose a folder on a local disk or on NFS, or an object store, with --outputs"


@contextlib.contextmanager
def folder_probes(location: str) -> Iterator[Sequence[Probe]]:
    """Give the probes of a store in a folder, which need not exist; they write into a folder of their own in it."""
    root = Path(location).absolute()
    # Where it is to be made, if it is not there yet. No run looks at a name with a dot.
    base = existing(root)
    work = base / f".doctor-{secrets.token_hex(8)}"

    def there(look: Callable[[Path], Finding]) -> Callable[[], list[Finding]]:
        return lambda: [look(work)]

    try:
        yield [
            Probe("place", lambda: [_place(root, base, work)]),
            Probe("file system", lambda: [kind_of(base)]),
            Probe("room", lambda: [_room(base)]),
            Probe("rename", there(_rename)),
            Probe("rename, raced", there(_raced_renames)),
            Probe("exclusive create", there(_raced_creates)),
            Probe("sign of life", there(_sign_of_life)),
            Probe("listing", there(_listing)),
            Probe("clock", there(_clock)),
            Probe("flush", there(_flush)),
            Probe("links", there(_links)),
            Probe("names", there(_names)),
        ]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _place(root: Path, base: Path, work: Path) -> Finding:
    if not base.is_dir():
        return wrong("place", f"{base} is a file, no folder", "choose a folder with --outputs", last=True)
    try:
        work.mkdir()
        create_file(str(work / "probe"), b"\0" * 4096)
    except OSError as error:
        seen = f"{base} cannot be written: {error.strerror or error}"
        return wrong("place", seen, remedy(error).partition(", then give")[0], last=True)
    return ok("place", f"{root} can be written" if base == root else f"{root} is not there yet; {base} can be written")


def _room(base: Path) -> Finding:
    found = room("room", base)
    # Without room there is nothing to try.
    return replace(found, last=found.state is State.WRONG)


def _rename(work: Path) -> Finding:
    """Take, commit and evict as a lease does, one after the other."""
    name = "rename"
    for each in ("source/claim", "empty", "filled/claim"):
        (work / each).mkdir(parents=True)
    descriptor = os.open(work / "source", os.O_RDONLY | os.O_DIRECTORY)
    try:
        refused = _refusal(work / "source", work / "filled")
        if refused not in (errno.ENOTEMPTY, errno.EEXIST):
            seen = "a folder replaces one that is not empty" if refused is None else f"answers {os.strerror(refused)}"
            return wrong(name, f"{seen}: two drivers could hold one lease", _ELSEWHERE)
        refused = _refusal(work / "source", work / "empty")
        if refused is not None:
            return wrong(name, f"a folder cannot take the place of an empty one: {os.strerror(refused)}", _ELSEWHERE)
        if (refused := _refusal(work / "source", work / "other")) != errno.ENOENT:
            return wrong(name, f"what was moved away can be moved again ({refused})", _ELSEWHERE)
        opened, seen_there = os.fstat(descriptor), (work / "empty").stat()
    finally:
        os.close(descriptor)
    if (opened.st_dev, opened.st_ino) != (seen_there.st_dev, seen_there.st_ino):
        return wrong(name, "a folder is another one after its rename (its inode changed)", _ELSEWHERE)
    return ok(name, "a folder takes the place of an empty one, not that of one that is filled")


def _refusal(source: Path, target: Path) -> int | None:
    try:
        source.rename(target)
    except OSError as error:
        return error.errno
    return None


def _raced_renames(work: Path) -> Finding:
    """Have several threads take one claim at once, each with a folder of its own."""

    def take(round_: int, racer: int) -> bool:
        private = work / f"private-{round_}-{racer}"
        (private / "claim").mkdir(parents=True)
        return _refusal(private, work / f"claim-{round_}") is None

    return _judged("rename, raced", "renamed a folder to one place", race(take))


def _raced_creates(work: Path) -> Finding:
    def create(round_: int, racer: int) -> bool:
        try:
            create_file(str(work / f"file-{round_}"), str(racer).encode())
        except FileExistsError:
            return False
        return True

    return _judged("exclusive create", "created one file", race(create))


def _judged(name: str, deed: str, winners: Sequence[int]) -> Finding:
    bad = [count for count in winners if count != 1]
    if bad:
        seen = f"of {RACERS} at once that {deed}, {max(bad)} succeeded (in {len(bad)} of {ROUNDS} rounds)"
        return wrong(name, f"{seen}: two drivers could hold one lease", _ELSEWHERE)
    return ok(name, f"of {RACERS} at once that {deed}, one succeeded, in each of {ROUNDS} rounds")


def _sign_of_life(work: Path) -> Finding:
    """See through a fresh open that a folder was touched, as one driver sees that another is alive."""
    name, folder = "sign of life", work / "alive"
    folder.mkdir()
    before = time.time() - BEAT
    os.utime(folder, (before, before))
    first = _changed(folder)
    os.utime(folder)
    if _changed(folder) == first:
        seen = "a folder's time of change stays as it was when it is set: whoever lives is taken for dead"
        return wrong(name, seen, _ELSEWHERE)
    return ok(name, f"a folder's time of change, set every {BEAT:.0f} s, is seen at once")


def _changed(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _listing(work: Path) -> Finding:
    folder = work / "listed"
    folder.mkdir()
    names = {f"{number:03}" for number in range(100)}
    for each in names:
        create_file(str(folder / each), each.encode())
    found = {each.name for each in folder.iterdir()}
    if found != names:
        seen = f"of 100 files that were made, {len(found & names)} are listed"
        return wrong("listing", seen, _ELSEWHERE)
    return ok("listing", "100 files that were made are listed at once")


def _clock(work: Path) -> Finding:
    """Compare the clock that files are stamped with, on NFS the server's, with this machine's."""
    before = time.time()
    create_file(str(work / "clock"), b"now")
    after, stamp = time.time(), (work / "clock").stat().st_mtime
    offset = stamp - min(max(stamp, before), after)
    if abs(offset) > _SKEW:
        return warning(
            "clock",
            f"files are stamped {abs(offset):,.0f} s {'later' if offset > 0 else 'earlier'} than this machine's clock "
            "says; no lease depends on it, what is shown of ages does",
            "have both clocks set by NTP",
        )
    return ok("clock", f"files are stamped with this machine's time, within {_SKEW:.0f} s")


def _flush(work: Path) -> Finding:
    if flush_file_system(str(work)):
        return ok("flush", "the whole file system can be flushed at once (syncfs)")
    return warning("flush", "there is no syncfs: files are flushed one by one, which takes longer", "use Linux")


def _links(work: Path) -> Finding:
    name = "links"
    create_file(str(work / "linked"), b"once")
    try:
        os.link(work / "linked", work / "linked-too")
        count = (work / "linked").stat().st_nlink
    except OSError as error:
        seen = f"there are no hard links ({error.strerror}): sweep adopt copies files"
        return warning(name, seen, "nothing, if there is room for a copy of what is adopted")
    if count != 2:
        return warning(name, f"a file with two names says that it has {count}", "do not use sweep adopt here")
    try:
        (work / "soft").symlink_to("linked")
        os.close(os.open(work / "soft", os.O_RDONLY | os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP:
            return ok(name, "hard links work; a symbolic link is not followed where it must not be")
        # Without symbolic links there is nothing to follow.
        return ok(name, f"hard links work; there are no symbolic links ({error.strerror})")
    seen = "a symbolic link is followed although O_NOFOLLOW forbids it"
    return warning(name, seen, "let nobody else write into this store")


def _names(work: Path) -> Finding:
    name = "names"
    try:
        create_file(str(work / ("n" * _NAME)), b"")
    except OSError as error:
        seen = f"a name of {_NAME} characters is refused ({error.strerror}), and a claim may have one"
        return wrong(name, seen, _ELSEWHERE)
    create_file(str(work / "case"), b"")
    if (work / "CASE").exists():
        seen = "upper and lower case are one: two files of a stage that differ in nothing else would be one"
        return warning(name, seen, _ELSEWHERE)
    return ok(name, f"{_NAME} characters, and upper and lower case are told apart")
