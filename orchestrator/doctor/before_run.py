"""What every run looks at by itself, since it takes no time: what `sweep doctor` says of it too, and much else."""

from __future__ import annotations

from pathlib import Path

from orchestrator.doctor.file_system import existing, kind_of, room
from orchestrator.doctor.finding import State
from orchestrator.doctor.machine import open_files


def shortcomings(location: str) -> list[str]:
    """Return what a run should know of its store and of its limits before it starts, as sentences.

    That the store cannot be written at all is an error of `Store.prepare`, which comes before this.

    Args:
        location: the store's folder or URI.
    """
    found = [open_files()]
    if "://" not in location:
        place = existing(Path(location))
        found += [kind_of(place), room("room in the store", place)]
    return [f"{each.name}: {each.seen}; {each.remedy}" for each in found if each.state is not State.OK]
