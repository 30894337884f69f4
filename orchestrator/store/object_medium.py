"""Objects below a URI that fsspec knows, such as `s3://bucket/folder`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import fsspec.asyn

from orchestrator.extras import lacking
from orchestrator.redact import redact
from orchestrator.store.errors import ClaimedError, DamagedArtifactError, LostOutputError, StoreError
from orchestrator.store.medium import K

#: Requests that are under way at once when many small objects are read.
_REQUESTS = 64
#: Deletions that are under way at once.
_THREADS = 16
#: How S3 and its likes refuse a conditional write: there is an object already (not all of them name the condition that
#: failed, without which s3fs takes it for an unknown error), or another write of the same one is under way.
_REFUSED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "OperationAborted", "409"})
#: How S3 says that an object has no first byte.
_EMPTY = frozenset({"InvalidRange", "416"})
#: Seconds before each further try at a write that was refused where no object is to be seen.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
#: How often an S3 client asks before an error is ours, with pauses of a second or two: enough for a blip. Left alone,
#: s3fs asks five times, for each of them botocore five times, and for a read all that five times: a service that closes
#: connections was noticed after 27 s, by a read after 198 s, and one that never answers keeps each request for 15 s.
#: How long a store is waited for, and what is said of it, is up to `orchestrator/attempt/outage.py`.
_TRIES = {"mode": "standard", "total_max_attempts": 3}


def open_file_system(uri: str) -> tuple[Any, str, dict[str, Any]]:
    """Open the fsspec file system of a URI; only some kinds, such as ftp, connect to anything yet.

    Returns:
        The file system; the path in it; the options by which others open the same.

    Raises:
        ImportError: its package is not installed.
        ValueError: fsspec does not know this kind of URI, or cannot connect.
    """
    # Listings must show what other processes wrote a moment ago.
    options: dict[str, Any] = {"use_listings_cache": False}
    is_s3 = uri.startswith(("s3://", "s3a://"))
    if is_s3 and "AWS_MAX_ATTEMPTS" not in os.environ:
        options["config_kwargs"] = {"retries": _TRIES, **fsspec.config.conf.get("s3", {}).get("config_kwargs", {})}
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options)
    except (ImportError, ValueError):
        raise
    except Exception as error:  # Each service has exceptions of its own.
        raise ValueError(f"it cannot be reached ({redact(str(error)) or type(error).__name__})") from error
    if is_s3:
        fs.retries = 1
    return fs, path, options


class ObjectMedium:
    """The objects below a URI. Nothing is requested before it is used."""

    fs: Any
    """The fsspec file system; its own errors want `translate_errors`."""

    def __init__(self, location: str) -> None:
        """Address the objects.

        Raises:
            StoreError: fsspec does not know this kind of URI, or its package is not installed.
        """
        self.location = location
        try:
            self.fs, self._root, _ = open_file_system(location)
            self._is_s3 = hasattr(self.fs, "_call_s3")
        except (ImportError, ValueError) as error:
            reason = lacking("s3") if location.startswith("s3") else None
            raise StoreError(f"the store {location} cannot be opened: {reason or error}") from error

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn whatever the network or the service raises into StoreError, with a remedy."""
        try:
            yield
        except (ClaimedError, DamagedArtifactError, LostOutputError, StoreError):
            raise
        except Exception as error:  # Each service has exceptions of its own; none is an OSError for sure.
            reason = redact(str(error).strip()) or type(error).__name__
            remedy = "check address and credentials, then give the same command again; nothing is lost"
            raise StoreError(f"the store {self.location} cannot be reached or written: {reason}; {remedy}") from error

    def path(self, relative: str) -> str:
        """The path of an object, as fsspec wants it."""
        return f"{self._root}/{relative}"

    def names(self, folder: str) -> list[str]:
        """See `Medium.names`. A name `..` would lead out of the cache; that of the folder itself is empty."""
        with self.translate_errors():
            try:
                listing = self.fs.ls(self.path(folder), detail=False)
            except FileNotFoundError:
                return []
        names = [path.rsplit("/", 1)[-1] for path in listing]
        return [name for name in names if name and not name.startswith(".")]

    def sizes(self, folder: str) -> dict[str, int]:
        """List all objects below a folder, at any depth: path relative to the medium -> bytes."""
        with self.translate_errors():
            found = self.fs.find(self.path(folder), detail=True)
        return {
            path[len(self._root) + 1 :]: int(info["size"])
            for path, info in found.items()
            # Some services, and the pages of others, keep objects for folders themselves.
            if info["type"] == "file" and not path.endswith("/")
        }

    def read(self, paths: Mapping[K, str]) -> dict[K, bytes | None]:
        """See `Medium.read`. Many are read at once, each by one request."""
        if not paths:
            return {}
        full = {name: self.path(path) for name, path in paths.items()}
        with self.translate_errors():
            # From the start on: a file that is read as a whole costs s3fs another request, for its size.
            found = self.fs.cat(list(full.values()), on_error="return", batch_size=_REQUESTS, start=0)
            contents: dict[K, bytes | None] = {}
            for name, path in full.items():
                content = found[path]
                if isinstance(content, Exception) and _code(content) in _EMPTY:
                    content = b""
                if isinstance(content, BaseException) and not isinstance(content, FileNotFoundError):
                    raise content
                contents[name] = None if isinstance(content, BaseException) else content
        return contents

    def create(self, path: str, content: bytes) -> bool:
        """See `Medium.create`."""
        return self.put(path, content, None) is not None

    def state(self, path: str) -> tuple[bytes, str] | None:
        """Read an object, and the etag of what was read; None if there is none."""
        with self.translate_errors():
            try:
                if not self._is_s3:
                    content = bytes(self.fs.cat_file(self.path(path)))
                    return content, hashlib.md5(content, usedforsecurity=False).hexdigest()
                return fsspec.asyn.sync(self.fs.loop, self._get, self.path(path))  # type: ignore[no-any-return]
            except FileNotFoundError:
                return None

    async def _get(self, path: str) -> tuple[bytes, str]:
        bucket, key, _ = self.fs.split_path(path)
        found = await self.fs._call_s3("get_object", Bucket=bucket, Key=key)
        async with found["Body"] as body:
            return await body.read(), found["ETag"]

    def put(self, path: str, content: bytes, etag: str | None) -> str | None:
        """Write an object on a condition.

        Args:
            path: the object.
            content: what to write; no other writer may write the same.
            etag: the state that it must be in; None if there must be no such object.

        Returns:
            The state that it is in now; None if the condition did not hold.
        """
        pauses = iter(_PAUSES)
        with self.translate_errors():
            while True:
                try:
                    return self._put(path, content, etag)
                except Exception as error:
                    gone = etag is not None and isinstance(error, FileNotFoundError)
                    if not isinstance(error, FileExistsError) and _code(error) not in _REFUSED and not gone:
                        raise
                    # The answer to a write may be lost on its way; the library then asks again, and is refused because
                    # of what it wrote.
                    found = self.state(path)
                    if found and found[0] == content:
                        return found[1]
                    if (found and found[1]) != etag:
                        return None
                    # It met another write that is not to be seen yet, or what it met is gone by now.
                    pause = next(pauses, None)
                    if pause is None:
                        raise
                    time.sleep(random.uniform(0.5, 1.5) * pause)  # noqa: S311 (no secret)

    def _put(self, path: str, content: bytes, etag: str | None) -> str:
        path = self.path(path)
        if self._is_s3:
            condition = {"mode": "create"} if etag is None else {"IfMatch": etag}
            return str(self.fs.pipe_file(path, content, **condition)["ETag"])
        if etag is None:
            self.fs.pipe_file(path, content, mode="create")
        else:
            # Enough for one driver, and `conditional` says that there may be no other.
            found = bytes(self.fs.cat_file(path))
            if hashlib.md5(found, usedforsecurity=False).hexdigest() != etag:
                raise FileExistsError(path)
            self.fs.pipe_file(path, content)
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    def conditional(self) -> bool:
        """Find out whether the service refuses writes whose condition does not hold, without which leases mean nothing.

        Of the kinds that fsspec knows, only S3 has both conditions.
        """
        if not self._is_s3:
            return False
        probe = f"scratch/probe-{secrets.token_hex(8)}"
        try:
            first = self.put(probe, b"1", None)
            refused = self.put(probe, b"2", None) is None
            second = first and self.put(probe, b"3", first)
            return refused and second is not None and self.put(probe, b"4", first) is None
        finally:
            self.delete([probe])

    def replace(self, path: str, content: bytes) -> None:
        """Write an object, whether or not there is one."""
        with self.translate_errors():
            self.fs.pipe_file(self.path(path), content)

    def copy(self, source: str, target: str, names: Sequence[str]) -> None:
        """Have the service copy some files of a folder into another one; raises FileNotFoundError."""
        self.fs.copy(
            [self.path(f"{source}/{each}") for each in names], [self.path(f"{target}/{each}") for each in names]
        )

    def upload(self, source: Path, target: str, names: Sequence[str]) -> None:
        """Copy some files of a local folder into a folder of the medium."""
        self.fs.put([str(source / each) for each in names], [self.path(f"{target}/{each}") for each in names])

    def download(self, source: str, target: Path, names: Sequence[str]) -> None:
        """Copy some files of a folder into a local one; raises FileNotFoundError."""
        self.fs.get([self.path(f"{source}/{each}") for each in names], [str(target / each) for each in names])

    def delete(self, paths: Collection[str]) -> None:
        """See `Medium.delete`."""
        self._delete_each(self.fs.rm_file, paths)

    def delete_trees(self, folders: Collection[str]) -> None:
        """Delete folders with all that is in them; those that are missing are skipped."""
        self._delete_each(lambda path: self.fs.rm(path, recursive=True), folders)

    def _delete_each(self, action: Callable[[str], None], paths: Collection[str]) -> None:
        def delete(path: str) -> None:
            with self.translate_errors(), contextlib.suppress(FileNotFoundError):
                action(self.path(path))

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(delete, paths))


def _code(error: Exception) -> str | None:
    """What an S3 service called an error."""
    response: dict[str, dict[str, str]] = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code")
