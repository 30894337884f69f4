"""A store in an object store: whether the service keeps what leases and artifacts rely on (decision 16)."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from orchestrator.doctor.examination import Probe
from orchestrator.doctor.finding import Finding, ok, warning, wrong
from orchestrator.doctor.race import RACERS, ROUNDS, race
from orchestrator.store import StoreError
from orchestrator.store.object_medium import ObjectMedium

#: Seconds for a probe: a race is a hundred requests and more, and the library repeats one that is lost.
_PATIENCE = 60.0
#: Seconds for the first answer.
_FIRST = 20.0
#: Objects that are listed.
_LISTED = 20
#: Seconds by which clocks may differ: S3 refuses requests that are signed 900 s off.
_SKEW, _REFUSED = 60.0, 900.0
_ONE_DRIVER = "let one driver at a time use it, or choose a service that has conditional writes (S3, R2, MinIO, Ceph)"


@contextlib.contextmanager
def object_probes(location: str) -> Iterator[Sequence[Probe]]:
    """Give the probes of a store in an object store; what they write is below a prefix of their own."""
    try:
        # Not below `scratch`, `claims` and the like, which drivers look at.
        medium = ObjectMedium(f"{location.rstrip('/')}/doctor-{secrets.token_hex(8)}")
    except StoreError as error:
        found = wrong("place", str(error), "install what is missing, or correct the URI")
        yield [Probe("place", lambda: [found])]
        return
    seen = _Objects(medium, location)
    try:
        yield [
            Probe("place", lambda: [seen.place()], _FIRST),
            Probe("list after write", lambda: [seen.listing()], _PATIENCE),
            Probe("read after write", lambda: [seen.reading()], _PATIENCE),
            Probe("conditional writes", seen.conditions, 2 * _PATIENCE),
            Probe("copy", lambda: [seen.copy()], _PATIENCE),
            Probe("clock", lambda: [seen.clock()], _PATIENCE),
            Probe("delete", lambda: [seen.delete()], _PATIENCE),
        ]
    finally:
        if seen.reached:
            medium.delete_trees([""])


class _Objects:
    """The objects that the probes write."""

    def __init__(self, medium: ObjectMedium, location: str) -> None:
        self.medium = medium
        self.location = location
        self.reached = False

    def place(self) -> Finding:
        """Write an object and read it back."""
        try:
            self.medium.replace("place", b"probe")
            self.reached = True
            found = self.medium.read({"": "place"})[""]
        except StoreError as error:
            cause = error.__cause__
            reason = str(error).removeprefix(f"the store {self.medium.location} ").partition("; check")[0]
            remedy = "check address, bucket and credentials (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE)"
            if isinstance(cause, PermissionError):
                remedy = "give these credentials the right to put, get, list and delete objects there"
            return wrong("place", f"{self.location} {reason}", remedy, last=True)
        if found != b"probe":
            seen = f"what was written to {self.location} does not read back"
            return wrong("place", seen, "choose another service", last=True)
        return ok("place", f"{self.location} can be written and read")

    def listing(self) -> Finding:
        """List objects right after they were written, and right after half of them were deleted."""
        names = {f"{number:03}" for number in range(_LISTED)}
        for each in sorted(names):
            self.medium.replace(f"listed/{each}", each.encode())
        found = set(self.medium.names("listed"))
        gone = {each for each in names if each.endswith(("0", "2", "4", "6", "8"))}
        self.medium.delete([f"listed/{each}" for each in gone])
        rest = set(self.medium.names("listed"))
        if found != names or rest != names - gone:
            seen = f"of {_LISTED} objects that were written {len(found & names)} are listed, "
            seen += f"and {len(rest & gone)} of {len(gone)} that were deleted"
            remedy = "choose a service whose listings are strongly consistent; a cache before it is none"
            return wrong("list after write", f"{seen}: committed steps would be computed again", remedy)
        return ok("list after write", f"{_LISTED} objects are listed at once, and not after they were deleted")

    def reading(self) -> Finding:
        """Read an object right after each of several writes."""
        stale = 0
        for number in range(_LISTED):
            content = str(number).encode()
            self.medium.replace("read", content)
            stale += self.medium.read({"": "read"})[""] != content
        if stale:
            seen = f"{stale} of {_LISTED} reads gave what an object was before the last write"
            return wrong(
                "read after write", seen, "choose a service that is strongly consistent, and no cache before it"
            )
        return ok("read after write", f"{_LISTED} times an object was read as it was last written")

    def conditions(self) -> list[Finding]:
        """Find out whether conditions are looked at, then race writers for them."""
        if not self.medium.conditional():
            seen = "conditions are ignored, so nothing keeps two drivers from doing the same work"
            return [warning("conditional writes", seen, _ONE_DRIVER)]
        medium = self.medium

        def create(round_: int, racer: int) -> bool:
            return medium.create(f"created/{round_}", f"{round_} {racer}".encode())

        created = race(create)
        # All of them replace what they all have seen, as drivers do that take over a dead claim.
        dead = {round_: medium.put(f"replaced/{round_}", b"dead", None) for round_ in range(ROUNDS)}

        def replace(round_: int, racer: int) -> bool:
            return medium.put(f"replaced/{round_}", f"{round_} {racer}".encode(), dead[round_]) is not None

        return [
            _judged("conditional create", "created one object (If-None-Match)", created),
            _judged("conditional replace", "replaced one object (If-Match)", race(replace)),
        ]

    def copy(self) -> Finding:
        """Have the service copy an object, as `sweep adopt` does."""
        self.medium.replace("source/file", b"copied")
        self.medium.copy("source", "target", ["file"])
        if self.medium.read({"": "target/file"})[""] != b"copied":
            return warning("copy", "a copy has not the content of its source", "do not use sweep adopt here")
        return ok("copy", "the service copies objects by itself")

    def clock(self) -> Finding:
        """Compare the service's clock with this machine's."""
        name, before = "clock", time.time()
        self.medium.replace("clock", b"now")
        after = time.time()
        info: dict[str, Any] = self.medium.fs.info(self.medium.path("clock"))
        stamp = info.get("LastModified") or info.get("created")
        if not isinstance(stamp, datetime):
            return ok(name, "the service does not tell its time")
        then = stamp.timestamp()
        # Seconds are all that most services tell.
        offset = then - min(max(then, before - 1), after)
        seen = f"the service's clock is {abs(offset):,.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
        if abs(offset) > _REFUSED:
            return wrong(name, f"{seen}: S3 refuses what is signed 900 s off", "set this machine's clock by NTP")
        if abs(offset) > _SKEW:
            return warning(name, f"{seen}; from 900 s on S3 refuses requests", "set this machine's clock by NTP")
        return ok(name, f"the service and this machine agree on the time, within {_SKEW:.0f} s")

    def delete(self) -> Finding:
        """Delete all that was written."""
        self.medium.delete_trees([""])
        left = self.medium.sizes("")
        if left:
            seen = f"{len(left)} objects are still there after they were deleted: {self.medium.path('')}"
            return warning("delete", seen, "give these credentials the right to delete objects, and delete those")
        return ok("delete", "what was written for this is deleted")


def _judged(name: str, deed: str, winners: Sequence[int]) -> Finding:
    bad = [count for count in winners if count != 1]
    if bad:
        seen = f"of {RACERS} at once that {deed}, {max(bad)} succeeded (in {len(bad)} of {ROUNDS} rounds)"
        return wrong(name, f"{seen}: two drivers could hold one lease", _ONE_DRIVER)
    return ok(name, f"of {RACERS} at once that {deed}, one succeeded, in each of {ROUNDS} rounds")
