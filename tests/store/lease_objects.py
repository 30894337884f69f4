"""The world of `lease_world`, with an object store in memory or on a server."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lease_world import Driver, World
from store_samples import ADDRESS

from orchestrator.store import Lease
from orchestrator.store.lease import Claim, Claims, parse_claim
from orchestrator.store.medium import K
from orchestrator.store.object_lease import ObjectClaims, claim_path, files_path, manifest_path
from orchestrator.store.object_medium import ObjectMedium
from orchestrator.store.records import parse_manifest
from orchestrator.types import Artifact


class ObjectWorld(World):
    """An object store in memory. A lost answer is one after which the library asks again, and is refused."""

    def __init__(self, folder: Path, drivers: int) -> None:
        self.objects: dict[str, bytes] = {}
        super().__init__(folder, drivers)

    def medium_of(self, driver: Driver) -> JudgedMedium:
        return MemoryMedium(self, driver)

    def content(self, path: str) -> bytes | None:
        return self.objects.get(path)

    def claims_of(self, driver: Driver) -> Claims:
        return SeenObjectClaims(self.medium_of(driver), self.folder / driver.process.space)

    def is_valid(self, lease: Lease) -> bool:
        found = parse_claim((self.content(claim_path(ADDRESS)) or b"").partition(b"\n")[0].decode())
        return found is not None and found.token == lease.claim.token

    def artifact(self) -> dict[str, str] | None:
        content = self.content(manifest_path(ADDRESS))
        if content is None:
            return None
        manifest = parse_manifest(ADDRESS, content)
        folder = files_path(ADDRESS, manifest.upload or "")
        made = {name: (self.content(f"{folder}/{name}") or b"").decode() for name in manifest.files}
        return made | {"manifest": f"{int(manifest.metrics['m']):016x}"}

    def set_aside(self) -> None:
        del self.objects[manifest_path(ADDRESS)]


class ServedWorld(ObjectWorld):
    """The same, with a real server."""

    server: str

    def __init__(self, folder: Path, drivers: int) -> None:
        self.place = f"{self.server}/{folder.name}"
        self.medium = ObjectMedium(self.place)
        super().__init__(folder, drivers)

    def medium_of(self, driver: Driver) -> JudgedMedium:
        return ServedMedium(self, driver)

    def content(self, path: str) -> bytes | None:
        found = self.medium.state(path)
        return found[0] if found else None

    def set_aside(self) -> None:
        self.medium.delete([manifest_path(ADDRESS)])


class SeenObjectClaims(ObjectClaims):
    """Claims that remember what was seen of them."""

    medium: JudgedMedium

    def look(self, address: Artifact) -> list[Claim]:
        found = super().look(address)
        self.medium.driver.saw(found)
        return found

    def all(self) -> Mapping[Artifact, Claim]:
        found = super().all()
        self.medium.driver.saw(found.values())
        return found


class JudgedMedium(ObjectMedium):
    """Objects whose changes wait to be let go on, and are judged."""

    world: ObjectWorld
    driver: Driver

    def write(self, path: str, content: bytes, etag: str | None) -> str:
        """Write an object if the condition holds, else raise FileExistsError or FileNotFoundError."""
        raise NotImplementedError

    def _put(self, path: str, content: bytes, etag: str | None) -> str:
        self.world.stop()
        if self.driver.cut_off:
            self.driver.cut_off = False
            raise TimeoutError("no answer, however often it was asked")
        before = self.world.content(path)
        if path == manifest_path(ADDRESS):
            maker = f"{int(parse_manifest(ADDRESS, content).metrics['m']):016x}"
            self.world.demand(maker in self.world.out, "a manifest of which nobody decided")
            self.world.published.add(maker)
        etag = self.write(path, content, etag)
        if path == claim_path(ADDRESS):
            self._judge(before or b"", content)
        if self.driver.lost_answer:
            self.driver.lost_answer = False
            raise FileExistsError(path)
        return etag

    def _judge(self, before: bytes, after: bytes) -> None:
        """Judge a change of the claim."""
        old, new = (parse_claim(each.partition(b"\n")[0].decode()) for each in (before, after))
        if new and new.beat == "decided":
            self.world.may_end(new.token, "commit")
        if new:
            self.world.changed[new.token] = self.world.time
            self.world.demand(new.token in self.driver.tokens, "a claim in the name of another driver")
            self.world.demand(old is None or old.token == new.token, "a claim of another driver was overwritten")
        elif old and old.beat == "decided":
            self.world.demand(old.token in self.world.published, "a decision is forgotten")
        elif old:
            self.world.may_end(old.token, "release" if old.token in self.driver.tokens else "evict")

    def upload(self, source: Path, target: str, names: Sequence[str]) -> None:
        self.world.stop()
        super().upload(source, target, names)

    def delete_trees(self, folders: Collection[str]) -> None:
        self.world.stop()
        super().delete_trees(folders)


class ServedMedium(JudgedMedium):
    """Objects of a server."""

    def __init__(self, world: ServedWorld, driver: Driver) -> None:
        super().__init__(world.place)
        self.world = world
        self.driver = driver

    def write(self, path: str, content: bytes, etag: str | None) -> str:
        return ObjectMedium._put(self, path, content, etag)


class MemoryMedium(JudgedMedium):
    """Objects in memory, with the conditions of S3; like there, equal contents have equal etags."""

    def __init__(self, world: ObjectWorld, driver: Driver) -> None:
        self.location = "memory"
        self._is_s3 = True
        self._root = ""
        self.world = world
        self.driver = driver

    def path(self, relative: str) -> str:
        return relative

    def state(self, path: str) -> tuple[bytes, str] | None:
        content = self.world.objects.get(path)
        return None if content is None else (content, etag_of(content))

    def write(self, path: str, content: bytes, etag: str | None) -> str:
        before = self.world.objects.get(path)
        if (before is None) != (etag is None) or (before is not None and etag_of(before) != etag):
            raise FileNotFoundError(path) if before is None else FileExistsError(path)
        self.world.objects[path] = content
        return etag_of(content)

    def read(self, paths: Mapping[K, str]) -> dict[K, bytes | None]:
        return {name: self.world.objects.get(path) for name, path in paths.items()}

    def sizes(self, folder: str) -> dict[str, int]:
        return {path: len(content) for path, content in self.world.objects.items() if path.startswith(f"{folder}/")}

    def upload(self, source: Path, target: str, names: Sequence[str]) -> None:
        for name in names:
            self.world.stop()
            self.world.objects[f"{target}/{name}"] = (source / name).read_bytes()

    def delete_trees(self, folders: Collection[str]) -> None:
        self.world.stop()
        for path in [path for path in self.world.objects if path.startswith(tuple(f"{each}/" for each in folders))]:
            del self.world.objects[path]


def etag_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
