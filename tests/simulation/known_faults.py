"""Faults that were in the product, or might be: each is put back into its source, and the simulator must find it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType
from typing import Any, NamedTuple
from unittest import mock

from orchestrator.attempt import attempt, bundle, stage_call
from orchestrator.run import loop, ready, retry, trouble
from orchestrator.run.executors import recovery
from orchestrator.search import growth, rounds
from orchestrator.store import lease, object_lease, object_medium, posix_lease
from orchestrator.tracking import sync


class Alteration(NamedTuple):
    """A piece of a function's source, and what is put in its place."""

    owner: Any
    """The class or module that has the function."""
    name: str
    old: str
    new: str
    users: tuple[ModuleType, ...] = ()
    """Modules that have imported the function by name."""


#: Fault -> where it is put. What has two places has one for folders and one for objects.
MUTATIONS: dict[str, list[Alteration]] = {
    "a cell that joins while the store is away is forgotten": [
        Alteration(
            growth.Growth, "_take_in",
            "steps = self._schedule.join(cells, made)\n        self._joining.pop(0)",
            "self._joining.pop(0)\n        steps = self._schedule.join(cells, made)",
        )
    ],
    "a sampler is told what another driver's suggestion told it": [
        Alteration(
            rounds, "news", "and trial.number not in told", "", (growth,)
        )
    ],
    "a takeover that is not fenced": [
        Alteration(
            posix_lease.PosixClaims, "evict",
            "return _beat(path) == claim.beat and self.trash.throw_away(path)",
            "return any([self.trash.throw_away(f'{self.place(address)}/{n}') for n in _names(self.place(address))])",
        ),
        Alteration(object_lease.ObjectClaims, "evict", "if not found or _parse(found[0]) != claim:", "if not found:"),
    ],
    "a release of whoever holds the step": [
        Alteration(
            posix_lease.PosixLease, "_give_back", "self._claims.trash.throw_away(self.folder)",
            "[self._claims.trash.throw_away(f'{self._claims.place(self.address)}/{n}')"
            " for n in _names(self._claims.place(self.address))]",
        ),
        Alteration(
            object_lease.ObjectLease, "_give_back", 'self._swap(b"")',
            "(lambda f: f and f[0] and self._claims.medium.put(claim_path(self.address), b'', f[1]))"
            "(self._claims.medium.state(claim_path(self.address)))",
        ),
    ],
    "unfinished work swept by the name of the host": [
        Alteration(
            lease.Claims, "over", "or claim.process.gone()",
            "or (claim.host == _host() and claim.process.space != this_process().space)",
        ),
    ],
    "a commit without a token": [
        Alteration(
            posix_lease.PosixLease, "_commit", "            self.confirm()\n",
            "            self.folder = Path(next((f'{self._claims.place(self.address)}/{n}'"
            " for n in _names(self._claims.place(self.address))), self.folder))\n",
        ),
        Alteration(object_lease.ObjectLease, "_commit", "if not self._swap(", "if False and not self._swap("),
    ],
    "a lost answer that is taken for a failure": [
        Alteration(posix_lease.PosixLease, "_commit", "if not self.same_folder(target):", "if True:"),
        Alteration(object_medium.ObjectMedium, "put", "if found and found[0] == content:", "if False:"),
    ],
    "SystemExit of a stage that ends its worker": [
        Alteration(
            attempt, "run_attempt", "except BaseException as caught", "except Exception as caught", (bundle,)
        ),
    ],
    "a special file that is taken for an error of the store": [
        Alteration(
            attempt, "commit", "raise RejectedError(str(error)) from error", "raise StoreError(str(error)) from error",
            (bundle,),
        ),
    ],
    "a heartbeat, table or outbox that ends the sweep": [
        Alteration(trouble.Troubles, "contained", "except (StoreError, OSError) as error", "except EOFError as error"),
    ],
    "a claim of another that is overwritten": [
        Alteration(
            posix_lease.PosixClaims, "create", "            place = self.place(address)\n",
            "            place = self.place(address)\n            self.trash.throw_away(place)\n",
        ),
        Alteration(
            object_lease.ObjectClaims, "create", "if found and not found[0] else None", "if found else None"
        ),
    ],
    "all claims are taken for dead": [Alteration(lease.Claims, "over", "claim.process.gone()", "True")],
    "a manifest that nobody decided": [
        Alteration(object_lease.ObjectLease, "_commit", "raise LostOutputError(self.folder, evicted=True)", "pass"),
    ],
    "a decided commit that is evicted": [
        Alteration(object_lease.ObjectClaims, "evict", "if claim.beat == _DECIDED:", "if False:"),
    ],
    "what another driver published of mine is deleted": [
        Alteration(
            object_lease.ObjectLease, "_commit", 'if medium.read({"": manifest_path(self.address)})[""] == content:',
            "if False:",
        ),
    ],
    "a claim that is replaced whatever it is": [
        Alteration(
            object_lease.ObjectLease,
            "_swap",
            "self._etag)\n",
            "(self._claims.medium.state(claim_path(self.address)) or (b'', None))[1])\n",
        ),
    ],
    "a sign of life that overwrites a decision": [
        Alteration(object_lease.ObjectLease, "renew", "if self._decided:", "if False:"),
    ],
    "an attempt that was given up evicts the next": [
        Alteration(lease.Claims, "over", "(attempt is None or claim.attempt <= attempt)", "True"),
    ],
    "the record of another driver's attempt is taken for one's own": [
        Alteration(
            recovery, "recovered_attempts", "if (each.driver, each.number) == (request.driver, request.number)",
            "if each.number >= request.number",
        ),
    ],
    "a step that waits for ever for what cannot be made": [
        Alteration(ready.ReadySteps, "add", "elif hopeless:", "elif False:"),
    ],
    "a folder that was made, and whose answer was lost, fails the step": [
        Alteration(posix_lease.PosixClaims, "_mkdir", "with contextlib.suppress(FileExistsError):", "if True:"),
    ],
    "what is left of a claim that was not made goes with the next": [
        Alteration(
            posix_lease.PosixClaims, "create", "for name in _names(private):", "for name in ():"
        ),
    ],
    "one try too many": [Alteration(retry, "decide", "tries.counted < allowed", "tries.counted <= allowed", (loop,))],
    "a limit that is not kept": [
        Alteration(loop._Loop, "_submit", "limits.running - self.running", "limits.running + 1 - self.running")
    ],
    "what MLflow has, forgotten before it was asked": [
        Alteration(
            sync.Sync,
            "connect",
            "            kept = self._sift(self._backend.find(None))\n",
            "            self.sent.restart(identity)\n            kept = self._sift(self._backend.find(None))\n",
        ),
    ],
    "a run that MLflow has twice": [
        Alteration(sync.Sync, "deliver", "if self.sent.uncertain:", "if False:"),
    ],
    "inputs that are not verified": [
        Alteration(stage_call, "input_folders", "damage.append(error)", "folders.append(store.folder(artifact))")
    ],
}  # fmt: skip


#: Those that take more than a budget of 2,000 histories, or may: decision 18 says what holds them.
SELDOM = frozenset(
    {
        "a cell that joins while the store is away is forgotten",
        "an attempt that was given up evicts the next",
        "the record of another driver's attempt is taken for one's own",
        "what is left of a claim that was not made goes with the next",
        "what MLflow has, forgotten before it was asked",
        "what another driver published of mine is deleted",
    }
)


@contextmanager
def put_back(name: str) -> Iterator[None]:
    """Put a fault into the product, for the time of a context."""
    with ExitStack() as stack:
        for alteration in MUTATIONS[name]:
            function = _altered(alteration)
            for owner in (alteration.owner, *alteration.users):
                stack.enter_context(mock.patch.object(owner, alteration.name, function))
        yield


def _altered(alteration: Alteration) -> Any:
    found = inspect.getattr_static(alteration.owner, alteration.name)
    original: FunctionType = inspect.unwrap(found)
    source = textwrap.dedent(inspect.getsource(original))
    old = textwrap.dedent(alteration.old) if alteration.old.startswith(" ") else alteration.old
    if alteration.old.startswith(" "):
        # Whole lines: methods lose four columns.
        depth = 4 if isinstance(alteration.owner, type) else 0
        old = "".join(line[depth:] for line in alteration.old.splitlines(keepends=True))
        new = "".join(line[depth:] for line in alteration.new.splitlines(keepends=True))
    else:
        new = alteration.new
    assert old in source, f"{alteration.name} has no {old!r} any more"
    scope: dict[str, Any] = {}
    # An altered copy of the product's own source, for tests.
    exec(
        compile(f"from __future__ import annotations\n{source.replace(old, new)}", "<mutation>", "exec"),
        original.__globals__ | {},
        scope,
    )
    made = scope[alteration.name]
    inner = inspect.unwrap(made)
    rebound = FunctionType(inner.__code__, original.__globals__, inner.__name__, inner.__defaults__, inner.__closure__)
    rebound.__kwdefaults__ = inner.__kwdefaults__
    return contextmanager(rebound) if inner is not made else rebound
