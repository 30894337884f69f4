"""What is to be examined: a store, this machine, the services that sweeps reach and, if there is one, a cluster."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.doctor.examination import Probe, Subject
from orchestrator.doctor.finding import Finding, ok, warning
from orchestrator.sweep.outputs import in_ray_job, resolve_outputs
from orchestrator.sweep.problems import Problem, SweepError

#: How the names of sweep files end.
_SWEEPS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Patient:
    """Places to look at. None of them has been touched."""

    store: str
    """Folder or URI."""
    tracking_uri: str | None
    """MLflow's; None where the sweep has `tracking: false`."""
    endpoints: tuple[tuple[str, str | None], ...]
    """Servers that steps ask, each with the variable that holds its key."""
    address: str | None
    """Of the cluster, or of its job server; None if there is none."""
    pythons: tuple[str, ...] = ()
    """Interpreters of other environments that steps run under."""

    def subjects(self) -> list[Subject]:
        """Return what is examined, in the order in which it is told."""
        return [
            Subject(f"store {self.store}", self._store),
            Subject("this machine", self._machine),
            Subject("services", self._services),
            self._cluster(),
        ]

    @contextlib.contextmanager
    def _store(self) -> Iterator[Sequence[Probe]]:
        if "://" in self.store:
            from orchestrator.doctor.objects import object_probes as probes
        else:
            from orchestrator.doctor.folder import folder_probes as probes
        with probes(self.store) as found:
            yield found

    @contextlib.contextmanager
    def _machine(self) -> Iterator[Sequence[Probe]]:
        from orchestrator.doctor.machine import machine_probes

        # Those of a cluster are on its nodes.
        here = () if self.address or in_ray_job() else self.pythons
        yield [
            *machine_probes(),
            *(Probe("interpreter", functools.partial(_interpreter, each), 400.0) for each in here),
        ]

    @contextlib.contextmanager
    def _services(self) -> Iterator[Sequence[Probe]]:
        from orchestrator.doctor import listeners, services

        uri = self.tracking_uri
        mlflow = ok("MLflow", "tracking: false in the sweep") if uri is None else None
        yield [
            Probe("MLflow", lambda: [mlflow or services.mlflow(uri or "")], 20.0),
            Probe("Hub", lambda: [services.hub()], 20.0),
            *(Probe("endpoint", functools.partial(_endpoint, *each), 20.0) for each in self.endpoints),
            Probe("open ports", listeners.ports, 60.0),
            Probe("Ray's token", lambda: [listeners.token()]),
        ]

    def _cluster(self) -> Subject:
        address = self.address
        if address is None and not in_ray_job():
            none = ok("cluster", "no cluster was asked: there is no --address, and RAY_ADDRESS is not set")
            return Subject("cluster", lambda: contextlib.nullcontext([Probe("cluster", lambda: [none])]))
        if address and address.startswith(("http://", "https://")) and not in_ray_job():
            return Subject("cluster", lambda: contextlib.nullcontext(_job_server(address)))
        from orchestrator.doctor.cluster_process import ClusterProcess

        process = ClusterProcess(address, self.store, self.endpoints, self.pythons)
        return Subject("cluster", process.begin, process.end)


def _interpreter(python: str) -> list[Finding]:
    from orchestrator.doctor.interpreters import interpreter

    return [interpreter(python)]


def _endpoint(url: str, key: str | None) -> list[Finding]:
    from orchestrator.doctor.services import endpoint

    return [endpoint(url, key)]


def _job_server(address: str) -> list[Probe]:
    from orchestrator.doctor.services import job_server

    nodes = warning(
        "nodes",
        "cannot be looked at through a job server",
        f"on the head: sweep doctor --address auto; or: ray job submit --address {address} -- sweep doctor",
    )
    return [Probe("job server", lambda: [job_server(address), nodes])]


def admit(
    target: str | None = None,
    overrides: list[str] | None = None,
    outputs: str | None = None,
    store: str | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
) -> Patient:
    """Find out what is to be examined; nothing is touched but a sweep file.

    Args:
        target: a sweep file, an output root (or the `store` below it), or None for the default output root.
        overrides: what `-s` changes of a sweep file.
        outputs: the output root, if not that of the sweep file or the default.
        store: the store, if not that of the output root.
        address: the cluster; None for that of RAY_ADDRESS.
        tracking_uri: MLflow's; None for that of the sweep, else of MLFLOW_TRACKING_URI, else the output root's.

    Raises:
        SweepError: the sweep file has mistakes, the place is none, or two are named.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if target is not None and target.endswith(_SWEEPS):
        from orchestrator.doctor.interpreters import interpreters
        from orchestrator.doctor.services import endpoints
        from orchestrator.session import open_session

        session = open_session(Path(target), overrides, None, None, outputs, store)
        tracked = session.spec.tracking is not False or tracking_uri
        servers = tuple(dict.fromkeys(endpoints(session.spec.document.value)))
        uri = session.tracking_uri(tracking_uri) if tracked else None
        return Patient(session.outputs.store, uri, servers, address, interpreters(session.spec))
    given = {"-s": overrides, "--outputs": target and outputs, "--store": target and store}
    if mistaken := [name for name, value in given.items() if value]:
        raise SweepError([Problem(name, "", "goes with a sweep file, which was not named") for name in mistaken])
    outputs = outputs or target
    if target is not None and Path(target).name == "store":
        # It was said which one it is.
        store, outputs = target, target.rstrip("/").removesuffix("store").rstrip("/") or "."
    try:
        places = resolve_outputs("doctor", None, outputs, store)
    except SweepError as error:
        raise SweepError([replace(each, place="URI" if target else each.place) for each in error.problems]) from error
    return Patient(
        places.store, tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or places.tracking_uri, (), address
    )
