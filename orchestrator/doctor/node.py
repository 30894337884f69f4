"""One node of a cluster: what it tells of itself, and what several of them tell when they are compared."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.doctor.devices import devices, judge
from orchestrator.doctor.finding import Finding, State, ok, warning, wrong
from orchestrator.doctor.interpreters import interpreter
from orchestrator.doctor.machine import node_findings
from orchestrator.doctor.packages import THIS, versions
from orchestrator.doctor.services import endpoint, hub
from orchestrator.store.process import UNKNOWN, Process, this_process

#: Seconds by which the clocks of two nodes may differ, and by how much before an object store refuses one of them.
_SKEW, _REFUSED = 5.0, 900.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What a process tells of its node."""

    host: str
    versions: Mapping[str, str | None]
    process: Process
    gpus: int
    """As the driver of the system shows them."""
    findings: tuple[Finding, ...]
    """What its machine and its network lack."""


def facts(servers: Sequence[tuple[str, str | None]] = (), pythons: Sequence[str] = ()) -> Facts:
    """Look at the node of this process.

    Args:
        servers: endpoints that steps ask, each with the variable that holds its key.
        pythons: interpreters of other environments that steps run under.
    """
    found = devices()
    findings = [*node_findings(), judge(found), hub(), *(endpoint(*each) for each in servers)]
    findings += map(interpreter, pythons)
    return Facts(socket.gethostname(), versions(), this_process(), len(found.shown), tuple(findings))


def compare(driver: Mapping[str, str | None], nodes: Mapping[str, Facts]) -> list[Finding]:
    """Compare nodes with the driver and with each other.

    Args:
        driver: the versions where the command was given.
        nodes: name of each node -> what it told.
    """
    return [
        *_versions(driver, nodes),
        _hosts(nodes),
        *_together([dict(zip(nodes, row, strict=True)) for row in _rows(nodes)]),
    ]


def _rows(nodes: Mapping[str, Facts]) -> list[tuple[Finding, ...]]:
    # Every node looked at the same things, in the same order.
    return list(zip(*(each.findings for each in nodes.values()), strict=True))


def _versions(driver: Mapping[str, str | None], nodes: Mapping[str, Facts]) -> list[Finding]:
    findings, same = [], 0
    for name, here in driver.items():
        differing: dict[str | None, list[str]] = {}
        for label, each in nodes.items():
            if (there := each.versions.get(name)) != here:
                differing.setdefault(there, []).append(label)
        if not differing:
            same += here is not None
            continue
        told = "; ".join(f"{_version(version)} on {', '.join(labels)}" for version, labels in differing.items())
        seen = f"{name} is {_version(here)} on the driver, and {told}"
        if name == THIS:
            # Its code travels with a run.
            findings.append(warning("versions", f"{seen}; a run takes the driver's code along", _install(name, here)))
        elif here is None:
            findings.append(warning("versions", seen, "install the same on every node, if a stage uses it"))
        else:
            findings.append(wrong("versions", f"{seen}: one step may give other numbers there", _install(name, here)))
    seen = f"{same} that matter (Python and packages) are the same on the driver and all nodes"
    return findings or [ok("versions", seen)]


def _version(version: str | None) -> str:
    return version or "not installed"


def _install(name: str, version: str | None) -> str:
    wanted = f"pip install {name}=={version}" if version else f"pip install {name}"
    return f"{wanted} there, or in an image that all nodes share"


def _hosts(nodes: Mapping[str, Facts]) -> Finding:
    groups: dict[str, set[str]] = {}
    for each in nodes.values():
        groups.setdefault(each.host, set()).add(each.process.space)
    alike = [host for host, spaces in groups.items() if len(spaces) > 1]
    if alike:
        # Leases and claims tell them apart by boot and namespace.
        seen = f"several nodes are called {', '.join(alike)}; nothing relies on it but who reads records and messages"
        return ok("host names", seen)
    if UNKNOWN in {each.process.space for each in nodes.values()}:
        seen = "a node does not tell in which space of processes it is: what dies there is free after three minutes"
        return warning("host names", seen, "mount /proc in its container")
    if len(groups) < len(nodes):
        return ok("host names", f"{count(nodes)}; several are of one machine: {', '.join(sorted(groups))}")
    return ok("host names", f"{count(nodes)}, each with a name of its own")


def clones(nodes: Mapping[str, Facts], gone: Mapping[str, Sequence[str]]) -> Finding:
    """Tell whether nodes are taken for one machine that they are not.

    Args:
        nodes: name of each node -> what it told; all of these processes are alive.
        gone: name of a node -> those whose processes are dead, if it is right.
    """
    name = "processes"
    bad = {label: others for label, others in gone.items() if others}
    if bad:
        label, others = next(iter(bad.items()))
        return wrong(
            name,
            f"{label} takes living processes of {', '.join(others)} for dead: they have one boot id and PID namespace "
            "and are not one machine (clones of one snapshot), so a lease could be taken from who works",
            "restart these machines, so that each has a boot id of its own",
        )
    return ok(name, "no node takes a living process of another, or of the driver, for dead")


def clocks(offsets: Mapping[str, float]) -> Finding:
    """Compare the clocks of nodes with the driver's.

    Args:
        offsets: name of a node -> seconds that its clock is ahead for certain, whatever the call took.
    """
    late = {label: offset for label, offset in offsets.items() if abs(offset) > _SKEW}
    if not late:
        return ok("clocks", f"all nodes agree with the driver, within {_SKEW:.0f} s")
    told = "; ".join(
        f"{label} is {abs(each):,.0f} s {'ahead' if each > 0 else 'behind'}" for label, each in late.items()
    )
    seen = f"{told}: no lease depends on it; ages and the order of attempts are shown wrongly"
    if max(map(abs, late.values())) > _REFUSED:
        return wrong("clocks", f"{seen}, and S3 refuses what is signed there", "have all nodes set by NTP")
    return warning("clocks", seen, "have all nodes set by NTP")


def devices_of_ray(nodes: Mapping[str, Facts], promised: Mapping[str, float]) -> Finding:
    """Compare the GPUs that Ray gives away with those that nodes have."""
    short = [
        f"{label}: Ray gives away {promised[label]:g}, nvidia-smi shows {each.gpus}"
        for label, each in nodes.items()
        if promised.get(label, 0) > each.gpus
    ]
    if short:
        return wrong("GPUs of Ray", "; ".join(short), "start Ray there without --num-gpus, which then counts them")
    return ok("GPUs of Ray", f"{sum(promised.values()):g} in all, and as many are there")


def count(nodes: Collection[object]) -> str:
    """Write a number of nodes: "1 node", "3 nodes"."""
    return f"{len(nodes)} node{'' if len(nodes) == 1 else 's'}"


def _together(rows: Sequence[Mapping[str, Finding]]) -> list[Finding]:
    """Say once what several nodes say alike, and name those that something is wrong with."""
    findings: list[Finding] = []
    for row in rows:
        first = next(iter(row.values()))
        alike: dict[Finding, list[str]] = {}
        for label, each in row.items():
            if each.state is not State.OK:
                alike.setdefault(each, []).append(label)
        for each, labels in alike.items():
            where = f"all {count(row)}" if len(labels) == len(row) > 1 else ", ".join(labels)
            findings.append(replace(each, seen=f"{where}: {each.seen}"))
        if not alike:
            same = len(set(row.values())) == 1
            seen = f"{first.seen} ({count(row)})" if same else f"enough on all {count(row)}"
            findings.append(ok(first.name, seen))
    return findings
