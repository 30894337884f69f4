"""Judges what is done to the store: who may end a claim, and that what is committed is whole and stays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

from world import Actor, World

from orchestrator.store import lease as lease_module
from orchestrator.store.lease import Claim, parse_claim
from orchestrator.types import Artifact, Attempt


@dataclass
class Holding:
    """A claim, and what became of it."""

    claim: Claim
    address: Artifact
    holder: Actor
    life: float
    """When it showed life last."""
    ended: str = ""


@dataclass
class Judge:
    """Takes down what happens, and what is wrong with it."""

    world: World
    holdings: dict[str, Holding] = field(default_factory=dict)
    """Token -> claim."""
    current: dict[Artifact, str] = field(default_factory=dict)
    """Step -> token of the claim that counts."""
    committed: dict[Artifact, str] = field(default_factory=dict)
    """Step -> token of the claim that it was committed by."""
    since: dict[Artifact, float] = field(default_factory=dict)
    """Step -> when it was committed last."""
    looked: dict[tuple[Actor, Artifact], float] = field(default_factory=dict)
    """(Process, step) -> when it read the manifest last."""
    made: dict[Artifact, set[str]] = field(default_factory=dict)
    """Step -> tokens of all that were committed."""
    rotten: set[Artifact] = field(default_factory=set)
    """Artifacts that nature has damaged."""
    broken: list[str] = field(default_factory=list)
    """What must not happen, and did."""
    seen: set[tuple[object, ...]] = field(default_factory=set)
    """What was met, in the abstract: a history that meets something new is worth altering."""
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[Artifact, Actor] = field(default_factory=dict)
    """(By executors) step -> the worker that one of them takes to be at it now."""
    last: dict[Artifact, str] = field(default_factory=dict)
    """Step -> what happened to its claim last."""
    debug: ClassVar[bool] = False
    """Whether to stop in the debugger where something goes wrong."""

    def demand(self, holds: bool, otherwise: str) -> None:
        """Take down what must not happen: an error here would be taken for one of the store."""
        if not holds:
            self.broken.append(otherwise)
            self.world.tell(f"MUST NOT HAPPEN: {otherwise}")
            if self.debug:
                breakpoint()  # noqa: T100

    def _meet(self, address: Artifact, what: str, holder: Actor | None = None) -> None:
        state = "none"
        if holder:
            state = "dead" if not holder.alive else "asleep" if holder.asleep_until > self.world.now else "alive"
            if holder.node.lost:
                state += ", lost"
        crowd = sum(1 for each in self.holdings.values() if each.address == address and not each.ended)
        self.seen.add((self.last.get(address, ""), what, state, min(crowd, 3), self.world.actor is holder))
        self.last[address] = what
        self.counts[what] += 1

    # --- a folder

    def describe_rename(self, old: str, new: str) -> str:
        """Say in words what a rename does."""
        claim = parse_claim(old.rpartition("/")[2])
        place = "/".join(old.split("/")[2:4])
        if claim and new.startswith("store/artifacts/"):
            return f"commits {place} (epoch {claim.epoch})"
        if claim and new.startswith("store/trash/"):
            own = claim.token in self.world.actor.tokens if self.world.current else False
            return f"{'gives back' if own else 'evicts'} {place} (epoch {claim.epoch}, {self._name(claim.token)})"
        if old.startswith("store/claims/.") and new.startswith("store/claims/"):
            return f"claims {'/'.join(new.split('/')[2:4])}"
        return f"moves {old} to {new}"

    def _name(self, token: str) -> str:
        holding = self.holdings.get(token)
        return f"that of {holding.holder}" if holding else "nobody's"

    def renamed(self, old: str, new: str) -> None:
        """Judge a rename that was done."""
        if old.startswith("store/artifacts/") and not new.startswith("store/artifacts/"):
            self.taken_away(Artifact(*old.split("/")[2:4]))
            return
        if not old.startswith("store/claims/"):
            return
        claim = parse_claim(old.rpartition("/")[2])
        if claim and new.startswith("store/artifacts/"):
            self.commits(Artifact(*old.split("/")[2:4]), claim)
        elif claim and new.startswith("store/trash/"):
            self.ends(Artifact(*old.split("/")[2:4]), claim)
        elif old.startswith("store/claims/.") and new.startswith("store/claims/"):
            self.private(old[len("store/claims/.") :], Artifact(*new.split("/")[2:4]))
        elif new.startswith("store/trash/") and old.count("/") == 3:
            # The whole place of a step, with whatever claim is in it.
            token = self.current.get(Artifact(*old.split("/")[2:4]))
            if token and not self.holdings[token].ended:
                self.ends(self.holdings[token].address, self.holdings[token].claim)

    def private(self, token: str, address: Artifact) -> None:
        """Take down a claim that was made by a rename."""
        actor = self.world.actor
        claim = Claim(0, token, actor.facts.get("driver", ""), 0, actor.identity, actor.node.host)
        self.claims(address, claim)

    # --- claims

    def claims(self, address: Artifact, claim: Claim) -> None:
        """Judge a claim that was made."""
        before = self.holdings.get(self.current.get(address, ""))
        self.demand(before is None or bool(before.ended), f"{address.stage} is claimed, and has a valid claim")
        self.holdings[claim.token] = Holding(claim, address, self.world.actor, self.world.now)
        self.current[address] = claim.token
        self._meet(address, "claim", before.holder if before else None)

    def renewed(self, path: str) -> None:
        """Take down a sign of life of a claim's folder."""
        claim = parse_claim(path.rpartition("/")[2])
        if claim:
            self.shows_life(claim.token)

    def shows_life(self, token: str) -> None:
        """Take down a sign of life."""
        if token in self.holdings:
            self.holdings[token].life = self.world.now

    def ends(self, address: Artifact, claim: Claim) -> None:
        """Judge the end of a claim without a commit."""
        holding = self.holdings.get(claim.token)
        if holding is None:
            return
        actor, holder = self.world.actor, holding.holder
        own = claim.token in actor.tokens
        self._meet(address, "release" if own else "evict", holder)
        if not own:
            still = self.world.now - holding.life
            dead = not holder.alive and holder.identity.space == actor.identity.space
            same = holder.facts.get("driver") == actor.facts.get("driver")
            over = same and self.running.get(address) is not holder
            self.demand(
                dead or over or still >= lease_module.TERM,
                f"{actor} evicts the claim of {holder} on {address.stage} after {still:.1f} s without a sign of life",
            )
        holding.ended = "released" if own else "evicted"

    def commits(self, address: Artifact, claim: Claim) -> None:
        """Judge a commit."""
        holding = self.holdings.get(claim.token)
        actor = self.world.actor
        self._meet(address, "commit", holding.holder if holding else None)
        self.demand(claim.token in actor.tokens, f"{actor} commits by the claim of another")
        self.demand(bool(holding) and not holding.ended, f"{actor} commits {address.stage} after its claim ended")
        self.demand(address not in self.committed, f"{address.stage}/{address.key} is committed twice")
        if holding:
            holding.ended = "committed"
        self.committed[address] = claim.token
        self.since[address] = self.world.now
        self.made.setdefault(address, set()).add(claim.token)

    def taken_away(self, address: Artifact) -> None:
        """Judge that an artifact was set aside: nobody does that to one that was whole when it looked last."""
        if address in self.committed:
            newer = self.since[address] > self.looked.get((self.world.actor, address), -1.0)
            self.demand(address in self.rotten or newer, f"{address.stage}/{address.key}, which is whole, is set aside")
            self._meet(address, "discard")
            del self.committed[address]
        self.rotten.discard(address)

    def looks(self, address: Artifact) -> None:
        """Take down that a manifest was read."""
        self.looked[self.world.actor, address] = self.world.now

    # --- what drivers say

    def reported(self, attempt: Attempt) -> None:
        """Judge what a driver says of an attempt."""
        if attempt.metrics is not None:
            self.demand(
                bool(self.made.get(attempt.address)), f"{attempt.address.stage} is called committed, and was never"
            )
