"""What follows from an attempt that did not succeed: the step is tried again, waits, or failed, or the sweep stops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from orchestrator.attempt.outcome import CodeChangedError
from orchestrator.types import Attempt, Outcome

#: Outcomes after which trying again may help; done up to `runtime.attempts` times in one command.
RETRIED = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.IO_ERROR, Outcome.DAMAGED_INPUT})
#: Retries of a step whose node was lost: a spot instance may be preempted many times in a night.
LOST_LIMIT = 100
#: Exponential backoff (seconds): the pause before the second try, doubled for each later one, and its limit.
_BACKOFF, _BACKOFF_LIMIT = 1.0, 60.0
#: Seconds between looks at a step that another driver computes.
_POLL_CLAIMED = 2.0


@dataclass(frozen=True, slots=True)
class Tries:
    """The attempts that one command made at a step."""

    counted: int = 0
    """Attempts that count towards `runtime.attempts`, one that is running included."""
    lost: int = 0
    """Attempts that ended because a node went away, or another step of the bundle ended the process."""
    out_of_memory: int = 0
    """How often the step ran out of memory."""
    alone: bool = False
    """Whether the step may have ended its process, and gets a bundle of its own."""

    @property
    def made(self) -> int:
        """The number of attempts, counted or not."""
        return self.counted + self.lost


@dataclass(frozen=True, slots=True)
class Again:
    """The step is tried again after a pause in seconds."""

    tries: Tries
    pause: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Another driver computes the step; it is looked at again after a pause in seconds."""

    tries: Tries
    pause: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The step failed, and is not tried again by this command."""

    tries: Tries


@dataclass(frozen=True, slots=True)
class StopSweep:
    """The step failed for a reason that all other steps share."""

    tries: Tries
    reason: str


#: What a step has that was not begun yet.
FRESH = Tries()


# Nearly all steps have one of a few values.
@lru_cache(maxsize=256)
def begin(tries: Tries) -> Tries:
    """Count an attempt that starts."""
    return replace(tries, counted=tries.counted + 1)


def not_begun(tries: Tries, suspect: bool) -> Tries:
    """Take back an attempt that was not begun, because another step of the bundle ended the process.

    Args:
        tries: the attempts, that one included.
        suspect: whether the steps of the bundle are done together, so that this one may be the cause.
    """
    return replace(tries, counted=tries.counted - 1, alone=tries.alone or suspect)


def elsewhere(tries: Tries, neighbours: int) -> Tries:
    """Take back an attempt that may have failed because of where it was made; the next is made at another place."""
    return replace(tries, counted=tries.counted - 1, lost=tries.lost + 1, alone=tries.alone or neighbours > 1)


def decide(
    tries: Tries, attempt: Attempt, allowed: int, neighbours: int = 1, shared: bool = False
) -> Again | Wait | Failed | StopSweep:
    """Decide what follows from an attempt that did not succeed.

    Args:
        tries: the attempts at its step, this one included.
        attempt: how it ended.
        allowed: `runtime.attempts` of the step.
        neighbours: number of steps in its bundle.
        shared: whether another step of the bundle may be the cause.
    """
    if attempt.outcome is Outcome.CLAIMED:
        return Wait(replace(tries, counted=tries.counted - 1), _POLL_CLAIMED)
    if attempt.outcome is Outcome.LOST or shared:
        tries = replace(tries, counted=tries.counted - 1, lost=tries.lost + 1)
        again = tries.lost < LOST_LIMIT
    else:
        again = attempt.outcome in RETRIED and tries.counted < allowed
    if again:
        starved = int(attempt.outcome is Outcome.OUT_OF_MEMORY)
        tries = replace(tries, alone=tries.alone or neighbours > 1, out_of_memory=tries.out_of_memory + starved)
        return Again(tries, min(_BACKOFF * 2 ** (max(tries.counted, tries.lost) - 1), _BACKOFF_LIMIT))
    if attempt.outcome is Outcome.STORE_ERROR or attempt.error_class == CodeChangedError.__name__:
        return StopSweep(tries, f"{attempt.error}")
    return Failed(tries)
