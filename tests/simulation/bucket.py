"""An object store in memory, with the conditions of S3: the medium of the product's own store class."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from faults import Faults
from judge import Judge

from orchestrator.store.artifacts import Store
from orchestrator.store.lease import Claim, parse_claim
from orchestrator.store.medium import K
from orchestrator.store.object_lease import ObjectClaims
from orchestrator.store.object_medium import ObjectMedium
from orchestrator.store.objects import ObjectStore
from orchestrator.types import Artifact


class Bucket:
    """The objects that all processes see."""

    def __init__(self, faults: Faults, judge: Judge) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults = faults
        self.judge = judge
        self.decided: set[bytes] = set()
        """Manifests of which a claim has decided."""


class BucketMedium(ObjectMedium):
    """The objects, as one process sees them; like on S3, equal contents have equal etags."""

    def __init__(self, bucket: Bucket) -> None:
        self.location = "s3://simulated"
        self._is_s3 = True
        self._root = "s3://simulated"
        self.bucket = bucket
        self.fs = SimpleNamespace(copy=self._copy)

    def _act(self, what, do, lost=None, critical=False):  # type: ignore[no-untyped-def]
        return self.bucket.faults.act(
            "store", what, do, lambda: ConnectionError("the service does not answer"), lost, critical
        )

    @property
    def _objects(self) -> dict[str, bytes]:
        return self.bucket.objects

    def names(self, folder: str) -> list[str]:
        def do() -> list[str]:
            start = f"{folder}/"
            return sorted({path[len(start) :].split("/")[0] for path in self._objects if path.startswith(start)})

        with self.translate_errors():
            return self._act(f"lists {folder}", do)

    def sizes(self, folder: str) -> dict[str, int]:
        with self.translate_errors():
            return self._act(
                f"lists all of {folder}",
                lambda: {
                    path: len(content) for path, content in self._objects.items() if path.startswith(f"{folder}/")
                },
            )

    def read(self, paths: Mapping[K, str]) -> dict[K, bytes | None]:
        if not paths:
            return {}
        with self.translate_errors():
            return self._act(
                f"reads {len(paths)} objects",
                lambda: {name: self._look(path) for name, path in paths.items()},
                critical=any(path.startswith("manifests/") for path in paths.values()),
            )

    def _look(self, path: str) -> bytes | None:
        if path.startswith("manifests/"):
            self.bucket.judge.looks(Artifact(*path.removesuffix(".json").split("/")[1:]))
        return self._objects.get(path)

    def state(self, path: str) -> tuple[bytes, str] | None:
        def do() -> tuple[bytes, str] | None:
            content = self._objects.get(path)
            return None if content is None else (content, _etag(content))

        with self.translate_errors():
            return self._act(f"reads {path}", do, critical=path.startswith("claims/"))

    def _put(self, path: str, content: bytes, etag: str | None) -> str:
        def do() -> str:
            before = self._objects.get(path)
            if (before is None) != (etag is None) or (before is not None and _etag(before) != etag):
                raise FileNotFoundError(path) if before is None else FileExistsError(path)
            self._objects[path] = content
            self._judge(path, before or b"", content)
            return _etag(content)

        # Either the library asks again, and is refused because of what it wrote, or the caller hears of it.
        def lost(badness: float) -> Exception:
            return FileExistsError(path) if badness < 0.5 else ConnectionError("the connection broke")

        return self._act(self._describe(path, content), do, lost, path.startswith(("claims/", "manifests/")))

    def _describe(self, path: str, content: bytes) -> str:
        claim = _claim(content)
        if not path.startswith("claims/"):
            return f"writes {path}"
        place = path.removeprefix("claims/")
        if claim is None:
            return f"empties the claim on {place}"
        verb = {"0": "claims", "decided": "decides"}.get(claim.beat, "shows life on")
        return f"{verb} {place} (epoch {claim.epoch})"

    def _judge(self, path: str, before: bytes, after: bytes) -> None:
        judge = self.bucket.judge
        if path.startswith("manifests/"):
            judge.demand(after in self.bucket.decided, f"{path} is published, and nobody decided it")
        if not path.startswith("claims/"):
            return
        address = Artifact(*path.split("/")[1:])
        old, new = _claim(before), _claim(after)
        if new and (old is None or old.token != new.token):
            judge.demand(old is None, f"the claim on {address.stage} of another is overwritten")
            judge.claims(address, new)
        elif new and new.beat == "decided":
            self.bucket.decided.add(after.partition(b"\n")[2])
            judge.commits(address, new)
        elif new:
            judge.demand(old is None or old.beat != "decided", f"the decision on {address.stage} is overwritten")
            judge.shows_life(new.token)
        elif old and old.beat == "decided":
            manifest = f"manifests/{address.stage}/{address.key}.json"
            there = manifest in self._objects or address not in judge.committed
            judge.demand(there, f"the decision on {address.stage} is forgotten")
        elif old:
            judge.ends(address, old)

    def replace(self, path: str, content: bytes) -> None:
        with self.translate_errors():
            self._act(f"writes {path}", lambda: self._objects.__setitem__(path, content))

    def upload(self, source: Path, target: str, names: Sequence[str]) -> None:
        for name in names:
            content = (source / name).read_bytes()
            self._act(f"uploads {name}", lambda path=f"{target}/{name}", new=content: self._objects.update({path: new}))

    def download(self, source: str, target: Path, names: Sequence[str]) -> None:
        for name in names:
            content = self._act(f"downloads {name}", lambda path=f"{source}/{name}": self._objects.get(path))
            if content is None:
                raise FileNotFoundError(f"{source}/{name}")
            (target / name).write_bytes(content)

    def _copy(self, source: str, target: str) -> None:
        source, target = (each.removeprefix(f"{self._root}/") for each in (source, target))

        def do() -> None:
            if source not in self._objects:
                raise FileNotFoundError(source)
            self._objects[target] = self._objects[source]

        self._act(f"copies {source}", do)

    def delete(self, paths: Collection[str]) -> None:
        for path in paths:
            with self.translate_errors():
                self._act(f"deletes {path}", lambda path=path: self._remove(path))

    def delete_trees(self, folders: Collection[str]) -> None:
        for folder in folders:
            for path in [path for path in self._objects if path.startswith(f"{folder}/")]:
                self.delete([path])

    def _remove(self, path: str) -> None:
        if self._objects.pop(path, None) is not None and path.startswith("manifests/"):
            self.bucket.judge.taken_away(Artifact(*path.removesuffix(".json").split("/")[1:]))


class BucketStore(ObjectStore):
    """The product's store, over these objects."""

    def __init__(self, medium: BucketMedium, cache: Path) -> None:
        Store.__init__(self, medium.location, medium, ObjectClaims(medium, cache))
        self._cache = cache
        self._verified = set()


def _claim(content: bytes) -> Claim | None:
    return parse_claim(content.partition(b"\n")[0].decode(errors="replace"))


def _etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
