"""Who listens on this machine beyond loopback, and whether Ray asks strangers for its token (docs/security.md)."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.doctor.finding import Finding, ok, warning

#: One call of each kind of server that Ray has; each server knows one of them at least.
_CALLS = (
    "NodeInfoGcsService/GetAllNodeInfo",
    "NodeManagerService/GetNodeStats",
    "CoreWorkerService/GetCoreWorkerStats",
)
#: Seconds for an answer on this machine.
_PATIENCE = 3
#: Ports of Ray that are asked; all of one Ray ask for the same token.
_ASKED = 3
#: Ports that are named; of Ray there are a dozen and more.
_NAMED = 12


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that is open to other machines."""

    port: int
    command: str
    """The command line of the process; empty if that is another user's."""

    @property
    def program(self) -> str | None:
        """Which of the programs that belong to a sweep it is; None for all others."""
        words = self.command
        if "ray::" in words or any(each in words for each in ("/ray/core/src/", "/ray/dashboard/", "/ray/_private/")):
            return "Ray"
        if "streamlit" in words or "dashboards/live" in words or "dashboards.live" in words:
            return "the live page"
        if "mlflow" in words and "server" in words:
            return "MLflow"
        return None


def open_ports() -> list[Listener]:
    """List who listens on an address of this machine that others reach.

    Raises:
        psutil.AccessDenied: the platform does not tell that to everybody (macOS).
    """
    found: dict[int, Listener] = {}
    for each in psutil.net_connections("tcp"):
        if each.status != psutil.CONN_LISTEN or _is_loopback(each.laddr.ip):
            continue
        command = ""
        if each.pid:
            with contextlib.suppress(psutil.Error):
                command = " ".join(psutil.Process(each.pid).cmdline())
        found[each.laddr.port] = Listener(each.laddr.port, command)
    return [found[port] for port in sorted(found)]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0].removeprefix("::ffff:")).is_loopback


def ports() -> list[Finding]:
    """Tell which programs of a sweep can be reached from other machines, and how they are protected."""
    name = "open ports"
    try:
        found = open_ports()
    except psutil.AccessDenied:
        return [ok(name, "this platform does not tell who listens")]
    ours: dict[str, list[int]] = {}
    for each in found:
        if each.program:
            ours.setdefault(each.program, []).append(each.port)
    findings = [_judged(program, numbers) for program, numbers in sorted(ours.items())]
    if not findings:
        findings = [ok(name, "neither Ray nor MLflow nor the live page can be reached from other machines")]
    hidden = [each.port for each in found if not each.command]
    if hidden:
        verb = "are" if len(hidden) > 1 else "is"
        seen = f"whose {_listed(hidden)} {verb} cannot be told from here (another user's, or the kernel's)"
        findings.append(ok(name, seen))
    return findings


def _judged(program: str, numbers: Sequence[int]) -> Finding:
    seen = f"{program} can be reached from other machines: {_listed(numbers)}"
    if program == "Ray":
        answers = {answer for port in numbers for answer in _answers(port)}
        if "OK" in answers:
            remedy = "export RAY_AUTH_MODE=token before ray start on every node, and let a firewall drop the others"
            return warning(
                "open ports", f"{seen}; it asks for no token: whoever reaches it runs code as its user", remedy
            )
        if answers == {"UNAUTHENTICATED"}:
            return ok("open ports", f"{seen}; it refuses who has no token")
        return warning("open ports", f"{seen}; whether it asks for a token is unknown", "see docs/security.md")
    if program == "MLflow":
        remedy = "start it with --host 127.0.0.1 and reach it through ssh -L, or put a proxy with a password before it"
        return warning("open ports", f"{seen}; unless a proxy asks for one there is no password", remedy)
    remedy = "start it without --host, and reach it through ssh -L 8501:127.0.0.1:8501"
    return warning("open ports", f"{seen}; there is no password, and it shows results, errors and logs", remedy)


def _listed(numbers: Iterable[int]) -> str:
    every = sorted(numbers)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return f"port{'s' if len(every) > 1 else ''} {', '.join(map(str, every[:_NAMED]))}{more}"


def _answers(port: int) -> list[str]:
    """Ask a server of Ray without a token; returns the codes of its answers."""
    import grpc

    codes = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for call in _CALLS:
            try:
                channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=_PATIENCE)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)
    return [code for code in codes if code in ("OK", "UNAUTHENTICATED")]


def token() -> Finding:
    """Tell which token Ray's programs would use here."""
    name, path = "Ray's token", Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    mode = os.environ.get("RAY_AUTH_MODE")
    where = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(path) if path.is_file() else None
    seen = f"RAY_AUTH_MODE is {mode}" if mode else "RAY_AUTH_MODE is not set"
    if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return warning(name, f"{seen}; others can read {path}", f"chmod 600 {path}")
    if mode == "token" and where is None:
        return warning(
            name,
            f"{seen}, but there is no token in RAY_AUTH_TOKEN or {path}",
            "ray get-auth-token --generate, and the same on every node",
        )
    if mode == "disabled":
        remedy = "export RAY_AUTH_MODE=token before ray start, on every node and for whoever submits"
        return warning(name, f"{seen}: every head that is started here lets everybody in", remedy)
    return ok(name, f"{seen}; {f'a token is in {where}' if where else 'there is no token'}")
