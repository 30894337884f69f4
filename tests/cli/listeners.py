"""Starts Ray as `sweep run` does on one machine; prints as JSON who listens where, and what each tells a stranger."""

from __future__ import annotations

import http.client
import json

import grpc
import psutil

from orchestrator.run.executors.ray_cluster import RayExecutor

#: One of each kind of server that Ray has; each knows one of them at least.
CALLS = (
    "NodeInfoGcsService/GetAllNodeInfo",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Pull",
    "CoreWorkerService/GetCoreWorkerStats",
    "ReporterService/GetTraceback",
)


def by_http(port: int) -> str | None:
    """The status and the first line that a GET without a token is answered; None if HTTP is not spoken there."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("GET", "/")
        response = client.getresponse()
        return f"{response.status} {response.read().decode(errors='replace').splitlines()[0]}"
    except (OSError, http.client.HTTPException):
        return None
    finally:
        client.close()


def by_grpc(port: int) -> list[str]:
    """The codes that calls without a token are answered, of those that the server knows."""
    codes = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for call in CALLS:
            try:
                channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=30)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)
    return [code for code in codes if code != "UNIMPLEMENTED"]


def main() -> None:
    """As the module says."""
    executor = RayExecutor(None)
    try:
        found = [
            {"process": process.name(), "host": each.laddr.ip, "port": each.laddr.port}
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
            for each in process.net_connections("inet")
            if each.status == psutil.CONN_LISTEN
        ]
        told = [{**each, "http": by_http(each["port"])} for each in found]
        print(json.dumps([each if each["http"] else {**each, "grpc": by_grpc(each["port"])} for each in told]))
    finally:
        executor.stop()


if __name__ == "__main__":
    main()
