"""Connects to a Ray cluster, or starts a local instance that listens on loopback only."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

# Keeps older versions of Ray from warning; that steps without a GPU see none does not depend on it.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray._private import ray_constants

from orchestrator.code import PACKAGES
from orchestrator.redact import redact


class RayUnreachableError(Exception):
    """No Ray cluster answers at the address, or Ray does not start on this machine."""


def connect(address: str | None) -> Callable[[], None] | None:
    """Connect this process to a cluster, or start a local instance; keep a connection that exists.

    Args:
        address: address of the cluster; None takes RAY_ADDRESS, or else starts a local instance.

    Returns:
        What disconnects; None where the connection was somebody else's.

    Raises:
        RayUnreachableError: no cluster answers at the address, or none starts here.
    """
    if ray.is_initialized():
        return None
    listener = signal.getsignal(signal.SIGTERM)
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith(("http://", "https://")) and not in_job:
        shown = redact(address)
        raise RayUnreachableError(
            f"{shown} is a job server, which takes whole jobs: sweep submit SWEEP.yaml --address {shown}. "
            "To drive the cluster from here, give --address auto or HOST:6379. Nothing was run."
        )
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # The working directory of a job has been copied already.
    if not (in_job and PACKAGES[0].is_relative_to(Path.cwd())):
        options["runtime_env"] = copies()
    if not address and not in_job:
        # No dashboard: it costs seconds and a port, and a local run has no use for it.
        options |= {"include_dashboard": False, "address": "local"}
        # Without a token Ray would write one into ~/.ray, and from then on every `ray start --head` of this user
        # would demand it of `ray job submit`. A token of our own protects this instance and ends with it.
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif address and not in_job:
        options["address"] = address
    try:
        _probe(address)
        with contextlib.nullcontext() if address else _uninterrupted():
            start_ray(**options)
    except KeyboardInterrupt:
        _disconnect(listener)
        raise
    except Exception as error:  # a node that did not start in time is a plain Exception of Ray's
        reason = redact(str(error), address or "")
        raise RayUnreachableError(
            f"no Ray cluster answers at {redact(address)}: {reason}. Start one (ray start --head), correct "
            "--address or RAY_ADDRESS, or leave both out to use this machine. Nothing was run."
            if address
            else f"Ray did not start on this machine: {reason}. Nothing was run; give the same command again. "
            "Should that not help, Ray's logs are in /tmp/ray/session_latest/logs, and --inline does without Ray."
        ) from error
    return lambda: _disconnect(listener)


def _disconnect(listener: Any) -> None:
    """End the connection; what listened for SIGTERM before Ray did listens again."""
    with _uninterrupted():
        ray.shutdown()
        if listener is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, listener)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off: half a start, or half an end, leaves processes of Ray to a notebook that lives on.

    The second one is not put off.
    """
    listener = signal.getsignal(signal.SIGINT)
    if not callable(listener) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, listener)
    if came:
        signal.raise_signal(signal.SIGINT)


def copies() -> dict[str, Any]:
    """Return a `runtime_env` in which workers run copies of the driver's code.

    So they run neither a version that is installed on their node, nor code that is edited while the sweep runs.
    """
    return {
        "py_modules": [str(each) for each in PACKAGES],
        "worker_process_setup_hook": "orchestrator.code.keep_to_these_packages",
    }


def start_ray(**options: Any) -> None:
    """Call `ray.init(**options)`; retry twice if Ray's own processes need more than its 30 s on a busy machine.

    A local instance listens on loopback only.
    """
    with _on_loopback() if options.get("address") == "local" else contextlib.nullcontext():
        for last in (False, False, True):
            try:
                ray.init(**options)
                return
            except Exception as error:
                if last or "timed out during startup" not in str(error):
                    raise
                ray.shutdown()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Make this node call itself 127.0.0.1, from which Ray's processes derive the address that they listen on.

    Ray does so by itself on Windows and macOS, whose firewalls would ask; elsewhere it replaces 127.0.0.1 by an address
    of the machine, whatever the options say, and opens a dozen ports to the whole network.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    if name in os.environ:
        yield
        return
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    # For the processes that are started here.
    os.environ[name] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]


def _probe(address: str | None) -> None:
    """Connect to the address once and raise if that fails: Ray itself tries for minutes before it gives up."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
